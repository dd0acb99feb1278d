"""What several ComfyUI servers say, as the one answer that a single server would give: replies in, bytes out.

- `documents` reads the replies and writes the answers: whatever a server sends, what leaves here is JSON;
- `known` is what the proxy itself knows of prompts, for those that no server tells of;
- `ownership` settles which server is believed where several tell of one prompt, and `showing` what clients
  see of what it says;
- `queue`, `history` and `jobs` are the lists; `job_rows` and `outputs` make a job out of the first two, for
  servers before 0.6, which have no ``/api/jobs``;
- `object_info` is what the pool can run, `installation` what its machines are;
- `queue_length` is the number that the page shows;
- `recent` keeps answers for a moment, and `kept_pages` what servers said until something changes there.

None of these lists fails because a server does: the page takes an error for an empty list.
"""
