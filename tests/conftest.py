"""What all tests share: the synthesized assembly, made once per test run whatever the number of workers."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The CDK takes the first Node on the path: the one that is locked with the interpreter's environment.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


@dataclass(frozen=True)
class Assembly:
    """A cloud assembly on disk."""

    path: Path

    @cached_property
    def templates(self) -> dict[str, dict[str, Any]]:
        """Stack name to parsed template."""
        files = sorted(self.path.glob("*.template.json"))
        return {file.name.removesuffix(".template.json"): json.loads(file.read_text()) for file in files}

    def resources(self, kind: str, stack: str | None = None) -> dict[str, dict[str, Any]]:
        """Logical id to resource, of one CloudFormation type, in one stack or in all."""
        chosen = [self.templates[stack]] if stack else list(self.templates.values())
        return {name: found for template in chosen for name, found in template["Resources"].items()
                if found["Type"] == kind}  # fmt: skip

    def one(self, kind: str, stack: str | None = None) -> dict[str, Any]:
        """The properties of the only resource of a type."""
        (found,) = self.resources(kind, stack).values()
        properties: dict[str, Any] = found.get("Properties", {})
        return properties


def synthesize(target: Path, root: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the app of the repository at `root` as `./pushline synth` does, into `target`."""
    return python("app.py", target=target, root=root, **{"PYTHONPATH": str(root), **environment})


def python(*arguments: str, target: Path, root: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter from a repository's root."""
    variables = {**os.environ, "CDK_OUTDIR": str(target), **environment}
    return subprocess.run([sys.executable, *arguments], cwd=root, env=variables, capture_output=True, text=True,
                          check=False, timeout=600)  # fmt: skip


LONGEST_FIRST = (
    "rehearsal/test_a_push.py",
    "rehearsal/test_bad_pushes.py",
    "rehearsal/test_releases.py",
    "rehearsal/test_bad_versions.py",
    "rehearsal/test_drift.py",
    "rehearsal/test_restart.py",
    "rehearsal/test_real_clients.py",
    "rehearsal/test_pushes_at_the_door.py",
    "rehearsal/test_a_new_model.py",
    "rehearsal/test_runbook.py",
    "rehearsal/test_deployed_roles.py",
    "rehearsal/test_shadow_release.py",
    "stacks/test_scale.py",
    "stacks/test_data_protection.py",
    "contract/test_verify.py",
    "rehearsal/test_kinds_of_endpoint.py",
)
"""Files of minutes; a worker takes a whole file, so that the others would wait for one that begins late."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST_FIRST)}
    assert all(file.is_file() for file in places), f"{LONGEST_FIRST} names a file that is not there"
    items.sort(key=lambda item: places.get(item.path, len(places)))


MadeOnce = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> MadeOnce:
    """`made_once(name, make)`: a place that all workers of a test run share; the first to ask has it made."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def ask(name: str, make: Callable[[Path], None]) -> Path:
        target, done = shared / name, shared / f"{name}.done"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(target, ignore_errors=True)  # as a try that failed leaves it
                make(target)
                done.touch()
        return target

    return ask


RECORD = """
import json, os, pathlib
import app
from stacks import acknowledgements
noted, made, remember = os.environ["CDK_OUTDIR"] + ".used.json", [], acknowledgements.Checks.__init__
def __init__(self, app):
    made.append(self)
    remember(self, app)
acknowledgements.Checks.__init__ = __init__
"""
NOTE = """
used = [row.construct + row.finding for row in acknowledgements.TABLE if any(row in each.used for each in made)]
pathlib.Path(noted).write_text(json.dumps(used))
"""
"""Beside the assembly: the rows of the table of acknowledgements that had a finding."""


def used(made: Path) -> set[str]:
    """The rows that `NOTE` has written beside what was made."""
    return set(json.loads(Path(f"{made}.used.json").read_text()))


@pytest.fixture(scope="session")
def assembly(made_once: MadeOnce) -> Assembly:
    """The app's assembly."""

    def make(target: Path) -> None:
        done = python("-c", f"{RECORD}app.main(){NOTE}", target=target)
        assert done.returncode == 0, done.stdout + done.stderr

    return Assembly(made_once("cdk.out", make))


ACCOUNTS = {"training": "111111111111", "staging": "222222222222", "production": "333333333333"}
CONNECTION = "arn:aws:codeconnections:eu-west-1:111122223333:connection/01234567-89ab-cdef-0123-456789abcdef"
EXISTING = {
    "vpc": "vpc-0123456789abcdef0", "subnets": ["subnet-0123456789abcdef0"], "availability_zone": "eu-west-1a",
    "security_groups": ["sg-0123456789abcdef0", "sg-0123456789abcdef1"],
}  # fmt: skip
OTHER_SETTINGS = {
    "accounts": {
        "environments": {name: {"account": account, "region": "eu-west-1"} for name, account in ACCOUNTS.items()}
    },
    "bounded": {
        "budgets": {"staging": None},
        "retention": {"account_logs": False},
        "source": {"type": "s3"},
        "permissions_boundary": "teams/pushline-boundary",
        "network": {"training": EXISTING, "staging": {"vpc": "none"}, "production": {"vpc": "none"}},
    },
    "connected": {"source": {"type": "connection", "repository": "acme/models", "connection_arn": CONNECTION}},
}
"""What differs in platform.yaml, by the folder of the assembly."""
OTHER_MODELS = {
    "connected": {"monitoring": {"native": ["data_quality", "model_quality"]}},
    "shadowed": {"serving": {"shadow": True}},
}
"""What differs in every model.yaml."""
SYNTHESIZE_OTHERWISE = f"""
shipped, target = app.load_settings(), pathlib.Path(os.environ["CDK_OUTDIR"])
models, settings, others = app.load_models(app.ROOT, shipped.guardrails), {OTHER_SETTINGS}, {OTHER_MODELS}

def changed(model, changes):
    said = model.model_dump(exclude_unset=True)
    said |= {{key: {{**said.get(key, {{}}), **section}} for key, section in changes.items()}}
    return type(model).model_validate(said)

for name in {{**settings, **others}}:
    own = type(shipped).model_validate({{**shipped.model_dump(), **settings.get(name, {{}})}})
    ours = [changed(model, others.get(name, {{}})) for model in models]
    app.load_settings, app.load_models = lambda own=own: own, lambda *_, ours=ours: ours
    os.environ["CDK_OUTDIR"] = str(target / name)
    app.main()
"""


@pytest.fixture(scope="session")
def otherwise(made_once: MadeOnce) -> dict[str, Assembly]:
    """The assemblies of OTHER_SETTINGS and OTHER_MODELS by name."""

    def make(target: Path) -> None:
        done = python("-c", f"{RECORD}{SYNTHESIZE_OTHERWISE}{NOTE}", target=target)
        assert done.returncode == 0, done.stdout + done.stderr

    target = made_once("otherwise", make)
    return {name: Assembly(target / name) for name in {**OTHER_SETTINGS, **OTHER_MODELS}}
