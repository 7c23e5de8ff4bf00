"""When waiting ends: at rest, or at the timeout if something still runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rehearsal import waiting
from rehearsal.landscape import Landscape, ModelParts

SHORT = 0.01


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(waiting, "_POLL_SECONDS", 0.05)


def waited() -> waiting.Outcome:
    # A model without pipeline and reconcilers: nothing of the cloud is asked.
    landscape = Landscape({"buy": ModelParts("buy")})
    return waiting.wait(lambda service, place=None: None, landscape, ["buy"], SHORT, Console(file=io.StringIO()))


def test_confirming_that_all_is_at_rest_is_no_timeout() -> None:
    assert not waited().timed_out


def test_what_still_runs_at_the_timeout_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "busy", lambda client_of, parts: True)
    assert waited().timed_out
