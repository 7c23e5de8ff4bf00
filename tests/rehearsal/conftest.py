"""The embedded AWS for tests: a daemon of its own per test (or module), on a free port, IAM on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from rehearsal import server
from rehearsal.server import Running
from rehearsal.service import Service


@contextmanager
def running(state_dir: Path, *services: type[Service], time_scale: float = 60.0) -> Iterator[Running]:
    """A daemon with these services (default: all of the rehearsal's); stopped when the block ends."""
    names = [f"{service.__module__}:{service.__qualname__}" for service in services]
    try:
        yield server.up(state_dir, port=0, time_scale=time_scale, services=names)
    except server.NotStarted:
        print((state_dir / "server.log").read_text())
        raise
    finally:
        server.down(state_dir)


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


def make_role(cloud: Running, name: str, trusted: str, *statements: dict[str, Any]) -> str:
    """A role that the service principal `trusted` may assume, with one inline policy; returns its ARN."""
    iam = cloud.client("iam")
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": trusted}}],
    }
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    if statements:
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **s} for s in statements]}
        iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=json.dumps(policy))
    return str(arn)


def open_queue(cloud: Running, name: str, writer: str = "events.amazonaws.com") -> str:
    """A queue that every rule (or another service) may write to, over TLS only; returns its URL."""
    policy = {
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sqs:SendMessage",
                "Resource": "*",
                "Principal": {"Service": writer},
            },
            {
                "Effect": "Deny",
                "Action": "sqs:SendMessage",
                "Resource": "*",
                "Principal": "*",
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            },
        ]
    }
    return str(cloud.client("sqs").create_queue(QueueName=name, Attributes={"Policy": json.dumps(policy)})["QueueUrl"])
