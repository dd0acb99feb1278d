"""Signals that are taken over for a while and given back."""

import os
import signal
from threading import Thread

import pytest

from comfyproxy.service.signals import Signals

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has none to spare")


def test_a_signal_is_caught_and_given_back() -> None:
    caught: list[int] = []
    before = signal.getsignal(signal.SIGUSR1)
    signals = Signals()
    signals.catch("SIGUSR1", lambda number, frame: caught.append(number))
    signals.catch("SIGUSR1", lambda number, frame: caught.append(-number))
    os.kill(os.getpid(), signal.SIGUSR1)
    assert caught == [-signal.SIGUSR1]
    signals.release()
    assert signal.getsignal(signal.SIGUSR1) == before
    signals.release()


def test_what_a_system_has_not_is_left_out() -> None:
    signals = Signals()
    signals.catch("SIGNOTHING", print)
    signals.release()


def test_other_threads_than_the_main_one_catch_nothing() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    thread = Thread(target=Signals().catch, args=("SIGUSR1", print))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGUSR1) == before
