"""What tests of the rehearsal share: an embedded AWS per test, or per module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rehearsal.server import Running
from tests.rehearsal.daemon import running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """`start(MyService, time_scale=60)` runs a daemon in `tmp_path / "state"` until the test ends."""
    with ExitStack() as stack:
        yield lambda *services, time_scale=60.0: stack.enter_context(
            running(tmp_path / "state", *services, time_scale=time_scale)
        )


@pytest.fixture
def cloud(start: Callable[..., Running]) -> Running:
    """The whole rehearsal, empty."""
    return start()


@pytest.fixture(scope="module")
def shared_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The whole rehearsal, shared by a module's tests: use names of your own."""
    with running(tmp_path_factory.mktemp("rehearsal")) as cloud:
        yield cloud
