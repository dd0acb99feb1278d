"""Which server a prompt should run on, and in which order: decisions without I/O.

`durations` learns how long prompts take, `workload` is what one server has to do, `choice` sends a prompt
where it will finish first and takes one over for a server that is idle, `fairness` gives prompts the numbers
by which ComfyUI orders its queue.
"""
