"""The thread that works again and again: it goes on until it is stopped, and ends at once when it is."""

from __future__ import annotations

import threading

import pytest

from rehearsal.repeater import Repeater


def test_works_again_and_again_after_a_pause_of_its_own_each_time() -> None:
    rounds, pauses = threading.Semaphore(0), iter([0.0, 0.01, 3600.0])
    repeater = Repeater("again", rounds.release, lambda: next(pauses))
    repeater.start()
    assert all(rounds.acquire(timeout=60) for _ in range(2))
    repeater.stop()
    assert not repeater.is_alive()
    assert not rounds.acquire(blocking=False)
    assert not list(pauses)


def test_a_round_that_fails_is_told_and_is_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    rounds = threading.Semaphore(0)

    def work() -> None:
        rounds.release()
        raise ValueError("this time only")

    repeater = Repeater("failing", work, lambda: 0.0)
    repeater.start()
    assert all(rounds.acquire(timeout=60) for _ in range(2))
    repeater.stop()
    assert "a round of failing failed" in caplog.text
    assert "this time only" in caplog.text


def test_stops_after_what_it_is_doing_is_done() -> None:
    busy, done = threading.Event(), list[bool]()

    def work() -> None:
        busy.set()
        done.append(repeater.stopping.wait(60))

    repeater = Repeater("busy", work, lambda: 0.0)
    repeater.start()
    assert busy.wait(60)
    repeater.stop()
    assert done == [True]


def test_one_that_was_never_started_can_be_stopped() -> None:
    Repeater("idle", lambda: None, lambda: 0.0).stop()
