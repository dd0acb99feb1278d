"""Embedding in twisted.web: the same exchange as the daemon's, behind a `twisted.web.resource.Resource`.

`resource` has what users name, `RoundRobinResource`; `streaming` a Site that hands uploads on as they arrive.
Below them, in the order of a request: `head` writes down what twisted.web read, `front` is the client's side
of the exchange, `websocket` takes a connection away from its Site.

Nothing is imported here: `resource` imports `twisted.web.proxy`, which installs the default reactor.
"""
