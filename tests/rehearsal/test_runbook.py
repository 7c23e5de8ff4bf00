"""docs/runbook.md: every command about releases is run, in its order, against a rehearsal, with the real AWS CLI."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from rehearsal.assembly import deploy
from rehearsal.environments import interpreter, scrubbed
from tests.conftest import ROOT, Assembly
from tests.rehearsal.daemon import running
from tests.rehearsal.registry import Registry, patient

PAGE = (ROOT / "docs" / "runbook.md").read_text()
OTHERS = "## A retraining did not start"
"""From here on the page tells of retrainings and of other kinds of endpoints, which this rehearsal has none of."""
FOUND = re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.partition(OTHERS)[0], re.MULTILINE | re.DOTALL)
SECTIONS = [(title, text) for title, text in FOUND if "shadow" not in title]
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
PREPARE = BLOCK.findall(PAGE.split("\n## ")[0])[0]


@dataclass
class Operator:
    """A person with a terminal, a rehearsal and the page; versions 9 to 12 of the page are the registry's newest."""

    registry: Registry
    folder: Path
    oldest: int

    def does(self, commands: str) -> str:
        """Run the page's commands as typed; what they printed."""
        text = PREPARE + commands
        for number in (12, 11, 10, 9):
            text = re.sub(rf"\b{number}\b", str(self.oldest + number - 9), text)
        text = text.replace("REGION", "us-east-1").replace("ACCOUNT", "000000000000")
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", text], cwd=self.folder, env=self._environment(),
                              capture_output=True, text=True, check=False, timeout=120)  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _environment(self) -> dict[str, str]:
        keys = self.registry.at.environment()
        path = f"{interpreter('codebuild').parent}:{os.environ['PATH']}"
        return scrubbed(HOME=str(self.folder), **{**keys, "PATH": path, "PYTHONPATH": str(ROOT), "AWS_PAGER": ""})


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory, assembly: Assembly) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("runbook")
    with running(folder / "state", time_scale=120) as at:
        deploy(at, patient(assembly, folder / "cdk.out"), Console(quiet=True))
        registry = Registry(at)
        versions = [registry.register(instances=(2, 3), status="Approved") for _ in range(4)]
        registry.settle(versions[-1], "Approved")
        typed = folder / "pushline"
        typed.write_text(f'#!/bin/sh\nexec {sys.executable} -m rehearsal "$@" --state-dir {at.state_dir}\n')
        typed.chmod(0o755)
        yield Operator(registry, folder, versions[0])


@pytest.mark.parametrize(("title", "text"), SECTIONS, ids=[title for title, _ in SECTIONS])
def test_every_command_runs(operator: Operator, title: str, text: str) -> None:
    for commands in BLOCK.findall(text):
        operator.does(commands)
    after = {"Roll back": operator.oldest + 2, "Approve": operator.oldest + 3, "Pin a version": operator.oldest}
    if title in after:
        operator.does("./pushline wait --model flight_delay\n")
        assert operator.registry.live() == after[title]
