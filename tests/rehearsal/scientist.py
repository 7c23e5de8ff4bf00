"""A data scientist at a rehearsal: a clone of their own, edits, real pushes, and the verbs of the command line."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from rehearsal import server
from rehearsal.server import Running
from tests.conftest import ROOT, synthesize
from tests.rehearsal.daemon import running
from tests.rehearsal.waiting import PATIENCE_SECONDS, until

MODEL = "flight_delay"
THROUGH = "2013-01-12"
REDUCED = {
    "features.arguments.window_days": 10,
    "features.arguments.holdout_days": 3,
    "training.hyperparameters.num_round": 2,
    "training.hyperparameters.max_depth": 2,
}
"""Small enough for seconds, and easily beaten."""
CUSTOMERS = "customers"
BARELY = {
    "features.arguments.window_days": 10,
    "features.arguments.holdout_days": 3,
    "training.hyperparameters.num_round": 1,
    "training.hyperparameters.max_depth": 1,
}
"""The same of a new model, as `pushline new` writes it."""
BY_PUSHES_ALONE = {"retraining.on_new_data": False, "retraining.on_drift": False}
"""Nothing else retrains while a test looks: what was loaded would ask for it minutes later."""
BETTER = {"training.hyperparameters.num_round": 40, "training.hyperparameters.max_depth": 4}
TIME_SCALE = 10.0
_NOT_SOURCE = shutil.ignore_patterns(".*", "__pycache__", "cdk.out", "build", "tests", "bench", "docs")

Document = dict[str, Any]


@dataclass
class Scientist:
    """Works in `clone`; `at` is the rehearsal that is pushed to."""

    at: Running
    clone: Path

    def verb(self, name: str, *arguments: str, code: int = 0) -> str:
        """`python -m rehearsal NAME …` as typed; what it printed, if it ended with `code`."""
        command = [sys.executable, "-m", "rehearsal", name, *arguments, "--state-dir", str(self.at.state_dir)]
        done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False,
                              timeout=PATIENCE_SECONDS + 60)  # fmt: skip
        assert done.returncode == code, f"{name} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + ("" if name in ("status", "invoke", "audit", "remote") else done.stderr)

    def status(self) -> Document:
        """The document of `status --json`."""
        return dict(json.loads(self.verb("status", "--json")))

    def folder(self, model: str = MODEL) -> Path:
        return self.clone / "model_code" / model

    def configure(self, changes: dict[str, Any], model: str = MODEL) -> None:
        """Set dotted keys of the model's model.yaml."""
        configure(self.folder(model), changes)

    def commit(self, message: str) -> str:
        """Commit everything in the clone; the commit's id."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD").strip()

    def push(self, message: str) -> str:
        """Commit everything and push it with real git; the commit's id."""
        commit = self.commit(message)
        self.git("push", "--quiet", self.verb("remote").strip(), "HEAD:refs/heads/main")
        return commit

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=Scientist", "-c", "user.email=scientist@example.com")
        done = subprocess.run(["git", *who, *arguments], cwd=self.clone, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def deploy(self) -> None:
        """Synthesize and deploy what is in the clone."""
        self.verb("deploy", str(synthesized(self.clone)))

    def load(self, model: str = MODEL) -> None:
        self.verb("load", model, "--through", THROUGH, "--repository", str(self.clone))

    def pushed(self, message: str, model: str = MODEL, *, code: int = 0) -> Document:
        """Push and `wait` until all is at rest, which must end with `code`; the execution's row of `status`
        and what `wait` `told`."""
        known = self.executions(model)
        self.push(message)
        until(lambda: self.executions(model) != known, "the push started no execution")
        told = self.wait(model, code=code)
        return {**next(row for row in self.status()["pipelines"] if row["model"] == model), "told": told}

    def wait(self, model: str = MODEL, *, code: int = 0) -> str:
        """What `wait` prints, in one line: it breaks lines to fit a terminal."""
        return " ".join(self.verb("wait", "--model", model, "--timeout", str(PATIENCE_SECONDS), code=code).split())

    def executions(self, model: str = MODEL) -> set[str]:
        """The model's pipeline executions."""
        client = self.at.client("codepipeline")
        found = client.list_pipeline_executions(pipelineName=f"pushline-{model.replace('_', '-')}")
        return {row["pipelineExecutionId"] for row in found["pipelineExecutionSummaries"]}

    def live(self, model: str = MODEL, environment: str = "production") -> Document:
        """What answers: the answer of `invoke --json`."""
        return dict(json.loads(self.verb("invoke", model, "--environment", environment, "--json")))

    def restart(self, *, kill: bool = False) -> None:
        """`down`, or `kill -9`, and up again."""
        if kill:
            os.kill(self.at.pid, signal.SIGKILL)
        else:
            self.verb("down")
        server._reap(self.at.state_dir)
        self.at = server.up(self.at.state_dir, port=0, time_scale=TIME_SCALE)

    def restore(self, commit: str) -> None:
        """The files as they were in a commit; what is committed next is on top of what was pushed."""
        self.git("rm", "-r", "-f", "-q", ".")
        self.git("checkout", commit, "--", ".")


def configure(folder: Path, changes: dict[str, Any]) -> None:
    """Set dotted keys of the model.yaml in a model's folder."""
    path, yaml = folder / "model.yaml", YAML()
    yaml.width, yaml.preserve_quotes = 200, True
    document = yaml.load(path)
    for dotted, value in changes.items():
        *parents, key = dotted.split(".")
        functools.reduce(lambda node, name: node[name], parents, document)[key] = value
    yaml.dump(document, path)


def private_clone(folder: Path, *models: str) -> Path:
    """The files of the working tree, with these models only, in a git repository of their own."""
    shutil.copytree(ROOT, folder, ignore=functools.partial(_no_source, models))
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], cwd=folder, check=True)
    return folder


def _no_source(models: tuple[str, ...], folder: str, names: list[str]) -> set[str]:
    """What is not copied: what is no part of a push, and other models."""
    if Path(folder) == ROOT:
        return set(_NOT_SOURCE(folder, names))
    if Path(folder) == ROOT / "model_code":
        return set(names) - {"__init__.py", "shared", *models}
    return {name for name in names if name == "__pycache__"}


def synthesized(clone: Path) -> Path:
    """The assembly of a clone, made beside it."""
    target = clone.with_name("cdk.out")
    done = synthesize(target, root=clone)
    assert done.returncode == 0, done.stderr
    return target


@contextmanager
def rehearsal(clone: Path) -> Iterator[Scientist]:
    """A clone's stacks deployed on a rehearsal of its own, nothing loaded or pushed yet."""
    with running(clone.with_name("state"), time_scale=TIME_SCALE) as at:
        person = Scientist(at, clone)
        person.deploy()
        yield person


@contextmanager
def gone_on_with(rested: Path, folder: Path) -> Iterator[Scientist]:
    """A rehearsal that has stopped, started again in a copy of the folder of its state and clone."""
    shutil.copytree(rested, folder)
    with running(folder / "state", time_scale=TIME_SCALE) as at:
        yield Scientist(at, folder / "clone")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
