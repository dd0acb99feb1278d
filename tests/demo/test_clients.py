"""Who gets a message, and the two faults that a proxy has to cope with."""

from typing import Any

from comfyproxy.demo.clients import Clients
from comfyproxy.demo.events import Event, Preview


def test_a_message_goes_to_one_client_or_to_everybody(make_recorder: Any) -> None:
    clients, one, two = Clients(), make_recorder(), make_recorder()
    clients.join("1", one)
    clients.join("2", two)
    clients.publish(Event("for-1", {}), "1")
    clients.publish(Event("for-all", {}), None)
    assert (one.types, two.types) == (["for-1", "for-all"], ["for-all"])


def test_a_message_for_a_client_that_is_not_there_is_lost(recorder: Any) -> None:
    clients = Clients()
    clients.publish(Event("early", {}), "1")
    clients.join("1", recorder)
    assert recorder.received == []


def test_a_displaced_socket_takes_its_successor_with_it(make_recorder: Any) -> None:
    clients, first, second = Clients(), make_recorder(), make_recorder()
    clients.join("1", first)
    clients.join("1", second)
    clients.publish(Event("to-the-second", {}), "1")
    clients.leave("1")  # the first socket has closed
    clients.publish(Event("to-nobody", {}), "1")
    clients.publish(Event("to-nobody", {}), None)
    assert (first.types, second.types) == ([], ["to-the-second"])
    assert "1" not in clients


def test_a_client_that_comes_again_has_flagged_nothing_yet(make_recorder: Any) -> None:
    clients = Clients()
    clients.join("1", make_recorder())
    clients.set_features("1", {"supports_preview_metadata": True, "half": "yes"})
    assert clients.supports("1", "supports_preview_metadata")
    assert not clients.supports("1", "half")
    assert not clients.supports(None, "supports_preview_metadata")
    clients.join("1", make_recorder())
    assert not clients.supports("1", "supports_preview_metadata")


def test_one_socket_that_is_not_read_holds_up_everybody(make_recorder: Any) -> None:
    clients, stalled, healthy = Clients(), make_recorder(), make_recorder()
    clients.join("stalled", stalled)
    clients.join("healthy", healthy)
    stalled.writable = False
    clients.publish(Event("for-all", {}), None)
    clients.publish(Event("for-healthy", {}), "healthy")
    assert healthy.received == []
    stalled.writable = True
    clients.flush()
    assert healthy.types == ["for-all", "for-healthy"]


def test_the_end_of_a_stalled_socket_frees_the_others(make_recorder: Any) -> None:
    clients, stalled, healthy = Clients(), make_recorder(), make_recorder()
    clients.join("stalled", stalled)
    clients.join("healthy", healthy)
    stalled.writable = False
    clients.publish(Event("for-all", {}), None)
    clients.leave("stalled")
    assert (stalled.types, healthy.types) == ([], ["for-all"])


def test_messages_that_are_published_while_others_leave_keep_their_order() -> None:
    clients, seen = Clients(), []

    class Chatty:
        writable = True

        def send(self, payload: str | bytes) -> None:
            seen.append(payload)
            if len(seen) == 1:
                clients.publish(Event("second", {}), "1")

    clients.join("1", Chatty())
    clients.publish(Event("first", {}), None)
    assert seen == [Event("first", {}).encode(), Event("second", {}).encode()]


def test_an_answer_does_not_wait_in_the_line(make_recorder: Any) -> None:
    clients, stalled, healthy = Clients(), make_recorder(), make_recorder()
    clients.join("stalled", stalled)
    clients.join("healthy", healthy)
    stalled.writable = False
    clients.publish(Event("for-all", {}), None)
    clients.answer(Event("answer", {}), "healthy")
    clients.answer(Event("answer", {}), "nobody")
    assert healthy.types == ["answer"]


def test_a_preview_is_sent_in_either_form(recorder: Any) -> None:
    clients, shown = Clients(), Preview(b"PNG", "p", "1")
    clients.join("1", recorder)
    clients.publish_preview(shown, "1", with_metadata=True)
    clients.publish_preview(shown, None, with_metadata=False)
    assert recorder.received == [shown.encode_with_metadata(), shown.encode()]
