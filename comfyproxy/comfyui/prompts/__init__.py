"""The prompts of a pool whose servers behave as one, from submission to end: decisions without I/O.

What is done about them are operations (`comfyproxy.core.balancing.operations`), and what these share is in
`dispatch`, with the prompts themselves (`ledger`), the servers (`servers`) and what they can run
(`catalogs`):

- `submission` finds a server for a new prompt, and `sending` brings it there;
- `reconciling` finds out what became of prompts where no event says so, with `locating`;
- `losing` is for those whose server is gone, `endings` remembers them, and `moving` takes what waits where
  somebody has nothing to do;
- `withdrawing` deletes, interrupts and cancels, and `editing` answers the requests for it;
- `observing` listens to the servers, and `working` says what is to be done now.
"""
