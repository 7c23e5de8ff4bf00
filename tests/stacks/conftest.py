"""The app under settings other than the shipped ones, synthesized once per test run."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from tests.conftest import Assembly, python

EXISTING = {
    "vpc": "vpc-0123456789abcdef0", "subnets": ["subnet-0123456789abcdef0"], "availability_zone": "eu-west-1a",
    "security_groups": ["sg-0123456789abcdef0", "sg-0123456789abcdef1"],
}  # fmt: skip
OTHER_SETTINGS = {
    "bounded": {
        "budgets": {"staging": None},
        "permissions_boundary": "teams/pushline-boundary",
        "network": {"training": EXISTING, "staging": {"vpc": "none"}, "production": {"vpc": "none"}},
    },
}
"""What differs in platform.yaml, by the folder of the assembly."""
SYNTHESIZE = """
import os, pathlib, app
shipped, target = app.load_settings(), pathlib.Path(os.environ["CDK_OUTDIR"])
for name, changes in {settings}.items():
    changed = type(shipped).model_validate({{**shipped.model_dump(), **changes}})
    app.load_settings = lambda changed=changed: changed
    os.environ["CDK_OUTDIR"] = str(target / name)
    app.main()
"""


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
