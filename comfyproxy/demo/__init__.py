"""A small simulated ComfyUI: for `comfyproxy demo` on a machine without a GPU, and as the tests' backend.

It behaves as ComfyUI 0.33 does towards a proxy: the same routes twice (bare and under `/api`), the same
events in the same order, the same answers to bad input, and the same faults (a second WebSocket with one
client id displaces the first for good; one socket that is not read holds up everybody's events). What it
makes are cards: real PNG files that name the server and the prompt they come from, so that a person sees
which server did the work.

Reading order. Values and state without I/O: `picture` (with `font`) draws, `files` keeps input, output and
temp, `nodes` says what can be run, `graph` checks and orders a workflow, `queue` and `jobs` are what is asked
for and what became of it, `events` are the messages, `clients` says who gets them, `execution` runs one
prompt as a generator of pauses, `worker` turns the pauses into calls of a clock, and `machine` puts these
together. Towards HTTP: `routing` and the `routes` package map values to values; `userdata`, `logs`, `origin`
and `multipart` serve them. With I/O: `socket` (autobahn), `site` (twisted.web), and `server`, which listens.

The other side: `first_prompt` is a client that sends a workflow to any ComfyUI and reports how it goes, and
`showcase` is the `demo` command.
"""
