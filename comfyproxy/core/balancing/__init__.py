"""Who gets a request: the servers, what is known of them, and who is next.

`backend`, `pool` and `changes` are who there is; `health`, `outliers` and `probing` what is known of them,
`events` what is told of it. `selection` orders them, `balancer` chooses, `waiting` is the line before a full
pool, `retries` says whether to choose again, `stickiness` keeps clients where they are. `routes` says which
pool a path belongs to, `routing` is what an application may say about a request, `ratelimits` how many
requests a client may make.
"""
