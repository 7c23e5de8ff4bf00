"""From a state directory to the rehearsal that runs on it: clients, what is deployed, where to push."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rehearsal import server
from rehearsal.codecommit import git_url
from rehearsal.landscape import ClientOf, Landscape, NotDeployed, survey


class NotRunning(Exception):
    """No rehearsal runs on this state directory; the message says how to start it."""


def running(state_dir: Path) -> server.Running:
    """The rehearsal of this state directory; NotRunning if there is none."""
    found = server.find(state_dir)
    if found is None:
        raise NotRunning(f"nothing runs on {state_dir}; `./pushline up --state-dir {state_dir}` starts it")
    return found


def clients(at: server.Running) -> ClientOf:
    """boto3 clients by service name, each made once."""
    make: Callable[[str], Any] = at.client
    return functools.cache(make)


def connect(state_dir: Path) -> tuple[ClientOf, Landscape]:
    """Clients of the running rehearsal, and what is deployed on it."""
    client_of = clients(running(state_dir))
    return client_of, survey(client_of)


def repository_url(at: server.Running, landscape: Landscape) -> str:
    """What `git push` takes, with the credentials of this state directory; NotDeployed without a repository."""
    if not landscape.repository:
        raise NotDeployed("no deployed stack has a repository; deploy first")
    return git_url(at.state_dir, at.endpoint, landscape.repository)
