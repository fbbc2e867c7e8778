"""The first SIGINT, SIGTERM or SIGHUP is noted, the second ends the process at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from lalign.jobs.signals import SIGNALS, Interruption


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_first_signal_is_noted(number: int, status: int) -> None:
    with Interruption() as interruption:
        assert not interruption
        os.kill(os.getpid(), number)
        assert interruption
        assert interruption.received == number
    assert interruption.status == status


def test_what_signals_did_before_they_do_again() -> None:
    # Where the tests run in the background, a shell has had this one ignored.
    given = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruption():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, given)


def test_other_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with Interruption():
        assert signal.getsignal(signal.SIGUSR1) is before


def test_a_terminal_that_is_closed_sends_more_than_one() -> None:
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert interruption.received == signal.SIGTERM


def test_under_nohup_the_end_of_the_terminal_is_still_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interruption
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_no_signal_is_touched() -> None:
    """Python allows handlers only there; a job in a thread runs, and is interrupted as its program decides."""
    seen: list[object] = []

    def job() -> None:
        with Interruption() as interruption:
            seen.append(bool(interruption))

    thread = threading.Thread(target=job)
    before = [signal.getsignal(number) for number in SIGNALS]
    thread.start()
    thread.join()
    assert seen == [False]
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [("SIGINT", "SIGINT", 130), ("SIGTERM", "SIGTERM", 143), ("SIGTERM", "SIGINT", 130), ("SIGHUP", "SIGTERM", 143)],
)
def test_the_second_signal_ends_the_process_at_once(first: str, second: str, status: int) -> None:
    code = f"""
import os, signal
from lalign.jobs.signals import Interruption
try:
    with Interruption():
        os.kill(os.getpid(), signal.{first})
        print("still here", flush=True)
        os.kill(os.getpid(), signal.{second})
        print("still here")
finally:
    print("tidied up")
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (finished.returncode, finished.stdout, finished.stderr) == (status, "still here\n", "")
