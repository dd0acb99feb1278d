"""A running proxy: `sources` reads the configuration, `routing` turns it into pools and routes, `daemon` is
the service that listens and reloads, `output` takes its access lines, `static` serves a directory.
`usage` and `foreground` are for ``twistd`` and for ``comfyproxy run``, `report` for ``comfyproxy check``.
"""
