"""The embedded AWS as tests start it, a daemon of its own on a free port with IAM on, and what they put in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rehearsal import server
from rehearsal.server import Running
from rehearsal.service import Service
from tests.rehearsal.waiting import until


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


def kept(cloud: Running, service: str, *texts: str) -> None:
    """Wait until the embedded AWS has this on disk, where a kill leaves it: it writes a while after a change."""
    file = cloud.state_dir / "ministack" / f"{service}.json"
    until(lambda: file.is_file() and all(text in file.read_text() for text in texts), f"{texts} not in {file}")


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
