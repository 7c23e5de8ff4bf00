"""The app under settings other than the shipped ones, synthesized once per test run."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from tests.conftest import Assembly, python

CONNECTION = "arn:aws:codeconnections:eu-west-1:111122223333:connection/01234567-89ab-cdef-0123-456789abcdef"
EXISTING = {
    "vpc": "vpc-0123456789abcdef0", "subnets": ["subnet-0123456789abcdef0"], "availability_zone": "eu-west-1a",
    "security_groups": ["sg-0123456789abcdef0", "sg-0123456789abcdef1"],
}  # fmt: skip
OTHER_SETTINGS = {
    "bounded": {
        "budgets": {"staging": None},
        "source": {"type": "s3"},
        "permissions_boundary": "teams/pushline-boundary",
        "network": {"training": EXISTING, "staging": {"vpc": "none"}, "production": {"vpc": "none"}},
    },
    "connected": {"source": {"type": "connection", "repository": "acme/models", "connection_arn": CONNECTION}},
}
"""What differs in platform.yaml, by the folder of the assembly."""
SYNTHESIZE = """
import json, os, pathlib
from stacks import acknowledgements
made = []
remember = acknowledgements.Checks.__init__
def __init__(self, app):
    made.append(self)
    remember(self, app)
acknowledgements.Checks.__init__ = __init__
import app
shipped, target = app.load_settings(), pathlib.Path(os.environ["CDK_OUTDIR"])
for name, changes in {settings}.items():
    changed = type(shipped).model_validate({{**shipped.model_dump(), **changes}})
    app.load_settings = lambda changed=changed: changed
    os.environ["CDK_OUTDIR"] = str(target / name)
    app.main()
used = [row.construct + row.finding for row in acknowledgements.TABLE if any(row in each.used for each in made)]
(target / "used.json").write_text(json.dumps(used))
"""
USED = "used.json"
"""Beside the assemblies: the rows of the table of acknowledgements that had a finding."""


@pytest.fixture(scope="session")
def otherwise(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> dict[str, Assembly]:
    """The assemblies of OTHER_SETTINGS by name; the first worker to ask makes them."""
    base = tmp_path_factory.getbasetemp()
    target = (base if worker_id == "master" else base.parent) / "otherwise"
    with Path(f"{target}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "done").exists():
            done = python("-c", SYNTHESIZE.format(settings=OTHER_SETTINGS), target=target)
            assert done.returncode == 0, done.stderr
            (target / "done").touch()
    return {name: Assembly(target / name) for name in OTHER_SETTINGS}
