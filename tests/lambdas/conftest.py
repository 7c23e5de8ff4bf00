"""The world in which most tests of the door begin."""

from __future__ import annotations

import pytest

from tests.lambdas.retraining_world import TRAIN, World, modified


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A push changed one file of flight_delay."""
    made = World(monkeypatch)
    made.differences = modified(TRAIN)
    return made
