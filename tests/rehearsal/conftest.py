"""What tests of the rehearsal share: an embedded AWS per test, or per module."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from contract.new import write_model
from rehearsal.server import Running
from tests.conftest import MadeOnce
from tests.rehearsal.daemon import running
from tests.rehearsal.scientist import (
    BARELY,
    BY_PUSHES_ALONE,
    CUSTOMERS,
    Scientist,
    configure,
    gone_on_with,
    private_clone,
    rehearsal,
)


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


@pytest.fixture(scope="session")
def customers_at_rest(made_once: MadeOnce) -> Path:
    """`clone` and `state` of a stopped rehearsal in which a new model is live, and its `status.json` of before; made
    once in a test run."""

    def make(folder: Path) -> None:
        clone = private_clone(folder / "clone")
        write_model(clone, CUSTOMERS)
        configure(clone / "model_code" / CUSTOMERS, {**BARELY, **BY_PUSHES_ALONE})
        with rehearsal(clone) as person:
            person.load(CUSTOMERS)
            assert person.pushed("A new model", CUSTOMERS)["status"] == "Succeeded"
            (folder / "status.json").write_text(json.dumps(person.status()))

    return made_once("customers", make)


@pytest.fixture(scope="module")
def customers(customers_at_rest: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scientist]:
    """The module's own copy of `customers_at_rest`, running."""
    with gone_on_with(customers_at_rest, tmp_path_factory.mktemp("customers") / "copy") as person:
        yield person
