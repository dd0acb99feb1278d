"""Decisions without I/O: everything here is given its octets, its time and its randomness, and returns
values.

Configuration: `addresses` (with `urls` and `jsonarray`) reads lists of servers, `options` is the one
table of options, `kinds`, `settings`, `dotenv`, `tapconf` and `loading` make a `config` of them,
`diagnostics` says where a mistake is.
HTTP: `grammar`, `fields`, `http1` and `chunked` read messages, `headers`, `forwarding` and `websocket`
say what passes, `answers` are our own.
Balancing: `backend`, `pool` and `changes` are who there is, `selection` orders them, `routing` is what an
application may say about a request, `balancer` chooses, `retries` says whether to choose again, `routes`
which pool a path belongs to.
"""
