"""From a state directory to the rehearsal that runs on it: clients, what is deployed, where to push."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from rehearsal import server
from rehearsal.codecommit import git_url
from rehearsal.landscape import ClientOf, Landscape, NotDeployed, survey
from rehearsal.place import Place, recall


class NotRunning(Exception):
    """No rehearsal runs on this state directory; the message says how to start it."""


def running(state_dir: Path) -> server.Running:
    """The rehearsal of this state directory; NotRunning if there is none."""
    found = server.find(state_dir)
    if found is None:
        raise NotRunning(f"nothing runs on {state_dir}; `./pushline up --state-dir {state_dir}` starts it")
    return found


def places(at: server.Running) -> list[Place]:
    """Where something is deployed, training's place first."""
    return recall(at.state_dir) or [Place(at.root.account, at.root.region)]


def clients(at: server.Running) -> ClientOf:
    """boto3 clients by service name and place, each made once."""
    home = places(at)[0]

    @functools.cache
    def make(service: str, place: Place | None = None, /) -> Any:
        where = place or home
        return at.client(service, account=where.account, region=where.region)

    return make


def in_each_account(at: server.Running) -> list[ClientOf]:
    """Clients of every place where something is deployed."""
    make = clients(at)
    return [lambda service, *_, place=place: make(service, place) for place in places(at)]


def look(at: server.Running) -> tuple[ClientOf, Landscape]:
    """Clients of a running rehearsal, and what is deployed on it."""
    client_of = clients(at)
    return client_of, survey(client_of, places(at))


def connect(state_dir: Path) -> tuple[ClientOf, Landscape]:
    """Clients of the running rehearsal, and what is deployed on it."""
    return look(running(state_dir))


def repository_url(at: server.Running, landscape: Landscape) -> str:
    """What `git push` takes, with the credentials of this state directory; NotDeployed without a repository."""
    if not landscape.repository:
        raise NotDeployed("no deployed stack has a repository; deploy first")
    return git_url(at.state_dir, at.endpoint, landscape.repository)
