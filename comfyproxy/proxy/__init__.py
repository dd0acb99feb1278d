"""The data path on Twisted, to be read in the order of a request.

`listeners` accept, `downstream` reads the client, `exchange` knows the whole way of one request,
`connectors` lend connections, `upstream` speaks to the server, `relay` joins two connections for good.
`front` is what an exchange asks of the client's side, `proxy` what all connections share. Beside the way:
`tcp`, `websockets`, `tls`, `deadlines`, `accesslog`. The fast parts: `transports`, `reactor`, `splice`.
"""
