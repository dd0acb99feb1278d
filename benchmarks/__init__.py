"""comfyproxy beside its peers: the same work, the same backend, the same load, one process each.

`python -m benchmarks` runs it; `benchmarks/README.md` says how to read what it prints. Read in this order:
`works` (what is measured), `peers` (who is), `rounds` (how), `report` (what is printed). `calls` counts what
a request makes the interpreter do, which is what CI holds; `profiling` shows where its time goes.
"""
