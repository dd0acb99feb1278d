"""What nginx, HAProxy, Caddy, Traefik and Envoy make of the corpora, beside comfyproxy.

`python -m conformance.anchors` starts each of them that is on this machine in front of a server of its own,
sends it every file of ``tests/vectors`` and what `rules` has, and writes down what it answered and what
reached the server. Read in this order: `wire` (messages, read as kindly as can be), `backend`, `trials` (one
case at one proxy), `verdicts` (what it comes to), `rules`, `laxer` (where we pass what others refuse, and
why), `page`.
"""
