"""Which server a prompt should run on, and in which order: decisions without I/O.

`candidates` says which servers can run it, `scheduler` which of them does and what is moved later. It goes
by `durations`, learned from what has run, by the `workload` of each server, and by whose turn it is
(`fairness`); `choice` is where these meet.
"""
