"""buildspec.yml, run command by command in one bash as CodeBuild does; `aws` keeps S3 in a folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from rehearsal.environments import interpreter

ROOT = Path(__file__).resolve().parents[2]
AWS = r"""#!/bin/bash
set -eu
case "$1 $2" in
  "s3api list-objects-v2") for day in $DAYS; do echo "raw/buy/dt=$day/"; done; [ -n "$DAYS" ] || echo None ;;
  "s3 cp") from="${@: -2:1}"; to="${@: -1}"; mkdir -p "$S3/${to#s3://}"; cp -r "$from/." "$S3/${to#s3://}" ;;
  *) echo "not in this test: aws $*" >&2; exit 2 ;;
esac
"""
VARIABLES = {
    "MODEL": "buy", "ARTIFACTS": "artifacts", "DATA": "data", "COMMIT": "c" * 40, "TRIGGER": "push",
    "REASON": "push to main", "AS_OF": "none", "EXECUTION": "1234",
    "DAYS": "2013-02-27 2013-03-01 2099-01-01 2013-02-28 draft",
}  # fmt: skip


@dataclass(frozen=True)
class Build:
    """One build: its source folder and what S3 holds afterwards."""

    source: Path
    s3: Path

    def run(self, **variables: str) -> subprocess.CompletedProcess[str]:
        phases = yaml.safe_load((self.source / "buildspec.yml").read_text())["phases"]
        commands = [command for phase in ("install", "build") for command in phases[phase]["commands"]]
        script = "\n".join(f"{command}\n[ $? -eq 0 ] || exit 1" for command in commands)
        kept = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "PIP_", "SSL_"))}
        path = f"{self.source.parent / 'bin'}:{interpreter('codebuild').parent}:/usr/bin:/bin"
        environment = {**kept, "PATH": path, "HOME": os.environ["HOME"], "S3": str(self.s3), **VARIABLES, **variables}
        return subprocess.run(["bash", "-c", script], cwd=self.source, env=environment, capture_output=True,
                              text=True, timeout=300)  # fmt: skip

    @property
    def artifact(self) -> Path:
        return self.source / "retraining.json"


@pytest.fixture
def build(repository: Path, tmp_path: Path) -> Build:
    shutil.copytree(ROOT / "contract", repository / "contract", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "buildspec.yml", repository)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "aws").write_text(AWS)
    (tmp_path / "bin" / "aws").chmod(0o755)
    return Build(repository, tmp_path / "s3")


def test_a_push_is_verified_as_of_the_newest_day_that_is_no_mistake_and_its_bundle_uploaded(build: Build) -> None:
    done = build.run()
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(build.artifact.read_text())
    assert found["as_of"] == "2013-03-01"
    where = build.s3 / found["bundle"]["uri"].removeprefix("s3://")
    assert where.is_file()
    assert (where.parent / "features.py").is_file()
    assert yaml.safe_load((build.source / "buildspec.yml").read_text())["artifacts"]["files"] == ["retraining.json"]


def test_the_execution_of_the_pipelines_creation_ends_quietly(build: Build) -> None:
    done = build.run(TRIGGER="none", REASON="none", DAYS="")
    assert done.returncode == 0
    assert json.loads(build.artifact.read_text()) == {"trigger": "none"}
    assert not build.s3.exists()


def test_a_failure_ends_with_its_reason_and_leaves_nothing(build: Build) -> None:
    build.artifact.write_text('{"trigger": "forged"}')
    (build.source / "model_code" / "buy" / "train.py").write_text("def (\n")
    done = build.run(AS_OF="2013-03-01")
    assert done.returncode == 1
    assert "model_code/buy/train.py:1: is not valid Python" in done.stderr
    assert done.stderr.splitlines()[-1] == "1 problem"
    assert not build.artifact.exists()
    assert not build.s3.exists()


def test_no_data_is_said(build: Build) -> None:
    done = build.run(DAYS="")
    assert done.returncode == 1
    assert done.stderr.strip().endswith(
        "No data: s3://data/raw/buy/ has no day; land raw data as dt=YYYY-MM-DD/ and push again."
    )
