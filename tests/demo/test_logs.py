"""The log that the page can watch."""

from typing import Any

from comfyproxy.demo.clients import Clients
from comfyproxy.demo.logs import Logs


def test_a_subscriber_gets_each_new_line(recorder: Any) -> None:
    clients = Clients()
    clients.join("me", recorder)
    logs = Logs(clients)
    logs.add(0.0, "before")
    logs.subscribers.add("me")
    logs.add(1.5, "after")
    (data,) = recorder.data("logs")
    assert data["entries"] == [{"t": "1970-01-01T00:00:01.500000", "m": "after\n"}]
    assert data["size"] == {"cols": 80, "rows": 24}


def test_a_subscriber_without_a_socket_here_is_struck_off() -> None:
    logs = Logs(Clients())
    logs.subscribers.add("elsewhere")
    logs.add(0.0, "line")
    assert logs.subscribers == set()


def test_the_log_keeps_only_its_last_lines() -> None:
    logs = Logs(Clients())
    for number in range(400):
        logs.add(0.0, str(number))
    assert (len(logs.entries), logs.entries[-1]["m"]) == (300, "399\n")
