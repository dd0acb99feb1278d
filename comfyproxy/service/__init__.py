"""A running proxy: `sources` reads the configuration, `routing` (with `ratelimits`) turns it into pools and
routes, `daemon` is the service that listens and reloads, `health` what watches its pools, `output` takes its
access lines, `static` serves a directory. `signals` and `descriptors` are the process's. `usage` and
`foreground` are for ``twistd`` and for ``comfyproxy run``, `report` for ``comfyproxy check``.
"""
