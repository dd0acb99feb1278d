"""What is special about ComfyUI, as decisions without I/O: where a request belongs, and what to change in it.

ComfyUI keeps its queue, its history, its files and its clients' WebSockets in one process. A client whose
requests are spread over several of them loses events and does not find its results, so it has to stay with
one, or all of them have to answer as one. Requests say in several ways whose they are:

- `wire` knows where on ComfyUI's HTTP surface a request names its client and its prompts;
- `identity` mints ids that carry the fingerprint of their backend, so any process can tell where they belong;
- `affinity` remembers the ids that do not, the ones that clients made up;
- `claims` are what a request's head says of that;
- `origin` is ComfyUI's check on pages of other sites, made here, where the client's own ``Host`` is known;
- `messages` knows which WebSocket messages a slow client can do without, `probe` how to see that a ComfyUI
  works;
- `callers` tells browsers and scripts apart, and which backend is nearest to each;
- `home` is where settings, saved workflows and uploads are kept;
- `files` reads names of files, `ownership` knows which backend made which, `replication` copies those that a
  prompt loads (`inputs` finds them, `forms` uploads them), and `file_routes` are the requests for them;
- `logs` and `broadcast` are for the page's terminal, and for what all backends are to do (`steps` puts such
  operations together);
- `prompts` is what happens to prompts, `scheduling` which backend each should run on (`workflow` reads what
  it needs), and `fanin` makes one WebSocket of those of several backends;
- `views` shows the queues, histories and jobs of all backends as one, `installed` what they can run and are;
  `merging` makes the answers of what they say;
- `router` puts them together for the placements ``client`` and ``request``, `prompt_router` for ``prompt``.
"""
