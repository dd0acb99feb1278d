"""One WebSocket for a client whose prompts run on several ComfyUI servers.

ComfyUI sends the events of a prompt to the WebSocket that has the prompt's client id, and a page takes it
that one prompt runs at a time. So each server gets a connection under the same id, and what comes over all of
them is made into what one server would have said.

- `upstreams` knows which servers a session should be connected to, and which connections have gone deaf;
- `features` lets each side know what the other supports;
- `frames` reads and writes single messages;
- `story` keeps what was said about one prompt, so that it can be told later;
- `stage` shows one story at a time, and tells of the others when they end;
- `remaining` says how much is left to run;
- `telling` decides whose each message of a server is;
- `session` puts them together.
"""
