"""A load-balancing reverse proxy for pools of ComfyUI servers, on Twisted.

The nouns, each with one meaning:

- a **backend** is one server we send to; a **pool** is a named set of them; a **policy** orders candidates;
  a **balancer** is a pool with its policy, its stickiness and its rules for trying again;
- a **listener** accepts; **downstream** is the client's side; **upstream** (adjective) is towards backends;
- an **exchange** is one request with its response; a **lease** is one unit in flight on a backend, always
  released; a **relay** moves bytes both ways; a **connector** reuses idle backend connections;
- **affinity** is ComfyUI's meaning of staying with a server: by client, by prompt, by file.

Reading order is the way of a request: `proxy.listeners`, `proxy.downstream`, `proxy.exchange`, which asks
`comfyui.router` and `core.balancing.balancer`, then `proxy.connectors`, `proxy.upstream`, `proxy.relay`, and
back.

What may import what (`tests/test_architecture.py` holds it): `core` imports the standard library and decides
without I/O; `comfyui` imports `core`; `proxy` imports `core` and moves the bytes; `web` imports `core` and
`proxy`; `service`, `tap` and `cli` put it all together.
"""

__version__ = "0.1.0.dev0"
