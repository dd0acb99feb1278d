"""What a router may say: values, compared by what they say."""

import dataclasses

import pytest

from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.routing import Default, NeedBody, Pin, Refuse, Rewrite
from comfyproxy.core.configuration.addresses import Address

BACKEND = Backend(Address("http", "a", 8188))


def test_pin_lets_another_backend_take_over_unless_it_is_strict() -> None:
    assert not Pin(BACKEND).strict
    assert Pin(BACKEND, strict=True) != Pin(BACKEND)


def test_pins_are_equal_only_for_the_same_backend() -> None:
    assert Pin(BACKEND) == Pin(BACKEND)
    assert Pin(BACKEND) != Pin(Backend(BACKEND.address))


def test_rewrite_changes_nothing_unless_told() -> None:
    assert Rewrite() == Rewrite(target=None, body=None, answer_fields=b"")


@pytest.mark.parametrize("decision", [Default(), Pin(BACKEND), NeedBody(1), Refuse(404, "No."), Rewrite()])
def test_decisions_do_not_change(decision: object) -> None:
    for field in dataclasses.fields(decision):  # type: ignore[arg-type]
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(decision, field.name, None)
