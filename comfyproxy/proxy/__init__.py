"""The data path on Twisted, to be read in the order of a request.

- `listeners` accept (`accepting`, `gate`, `admission`: whom, and when), `proxyprotocol` reads who it is;
- `downstream` reads the client, with `uploads` for bodies and `answering` for what is written back;
- `exchange` knows the whole way of one request: `consulting` asks the router, `request_attempts` (and
  `attempts`, of plain TCP too) come by a server;
- `connectors` lend connections, `dialing` makes them (`resolver`, `nameservers`, `tls`), `upstream` speaks to
  the server;
- `relay` joins two connections for good: `tcp` for plain TCP, `tunnel` for WebSockets that are passed on
  unseen, `websockets` (`websocket_ends`, each a `websocket_end`, and `outflow`) for those that are read.

`front` is what an exchange asks of the client's side, `proxy` what all connections share.

Beside the way: `health` and `probes` watch servers, `background` does the work of routers, `operations` carry
out what they want done, with requests (`asking`) and WebSockets (`sessions`, `session_lines`) of the proxy's
own. `deadlines` and `pace` limit times, `draining` ends all, `accesslog` and `sparinglog` write lines.

The fast parts, each with a plain one to fall back to: `transports`, `reactor`, `splice`.
"""
