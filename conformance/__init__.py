"""How comfyproxy is held against standards, and against other proxies.

- `corpora`: the byte files of ``tests/vectors``
- `reading`, `oracles`: our reading of a message, and those of h11 and llhttp beside it
- `fuzzing`: inputs that a fuzzer finds (``python3 dev.py fuzz``)
- `wstest`: the Autobahn test suite through the proxy (``python3 dev.py autobahn``)
- `anchors`: what nginx, HAProxy, Envoy and others make of the corpora (``python3 dev.py anchors``)
"""
