"""The Autobahn test suite (wstest, 517 cases of RFC 6455 and RFC 7692) through the proxy, beside no proxy.

`python -m conformance.wstest` starts an echo server (`echo`), proxies before it, and lets wstest's fuzzing
client speak to each (`suite`). Through a proxy no case may end worse than without one (`grades`).
"""
