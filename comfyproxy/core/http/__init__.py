"""HTTP as values: what is read, what passes, what is ours to write.

`grammar`, `fields`, `http1` and `chunked` read messages, `frames` follows WebSocket frames, `websocket`
judges handshakes. `headers` and `forwarding` say what passes and what is added, `headerrules` changes it as a
route wants, `trust` says whose word on clients counts, `proxyprotocol` reads and writes that of
connections, `cookie` names a backend in a browser. `answers` are our own.
"""
