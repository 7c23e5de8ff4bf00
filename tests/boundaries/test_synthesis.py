"""The same settings give the same bytes, and the assembly is all that the rehearsal needs of the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT, Assembly, synthesize

NOT_SOURCE = shutil.ignore_patterns(".*", "cdk.out", "__pycache__", "tests", "bench", "docs", "node_modules", "build")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def without_git(tmp_path: Path) -> str:
    """A PATH that has Node and nothing else."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "node").symlink_to(Path(sys.executable).with_name("node"))
    assert shutil.which("git", path=str(programs)) is None
    return str(programs)


def test_another_folder_hash_seed_clock_zone_and_account_without_git_give_the_same_bytes(
    assembly: Assembly, tmp_path: Path, without_git: str
) -> None:
    elsewhere = tmp_path / "a folder elsewhere"
    shutil.copytree(ROOT, elsewhere, ignore=NOT_SOURCE)
    done = synthesize(tmp_path / "again", elsewhere, PATH=without_git, HOME=str(tmp_path), PYTHONHASHSEED="7",
                      TZ="Asia/Tokyo", LC_ALL="C", CDK_DEFAULT_ACCOUNT="111111111111",
                      CDK_DEFAULT_REGION="eu-west-1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "again") == contents(assembly.path)


def test_the_assembly_names_no_path_of_this_machine(assembly: Assembly) -> None:
    for name, text in contents(assembly.path).items():
        assert str(ROOT).encode() not in text, name


class Alone:
    """`rehearsal/` and `cdk.out` in a folder of their own, and nothing else of the repository."""

    def __init__(self, folder: Path, assembly: Assembly) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "rehearsal", folder / "rehearsal", ignore=NOT_SOURCE)
        shutil.copytree(assembly.path, folder / "cdk.out")

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """This interpreter, seeing only the folder."""
        return subprocess.run([sys.executable, *arguments], cwd=self.folder, env=self._environment(), check=False,
                              capture_output=True, text=True, timeout=300)  # fmt: skip

    @contextmanager
    def running(self) -> Iterator[None]:
        """The rehearsal's daemon as a child of this process, so that it ends with the test whatever happens."""
        command = [sys.executable, "-m", "rehearsal.server", "--state-dir", ".rehearsal", "--port", "0"]
        with (self.folder / "server.log").open("wb") as log:
            daemon = subprocess.Popen(command, cwd=self.folder, env=self._environment(), stdout=log, stderr=log)
        try:
            while not (self.folder / ".rehearsal" / "server.json").exists():
                assert daemon.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.05)
            yield
        finally:
            daemon.terminate()
            try:
                daemon.wait(30)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder)}


def test_the_rehearsal_deploys_the_assembly_with_nothing_else_of_the_repository(
    tmp_path: Path, assembly: Assembly
) -> None:
    alone = Alone(tmp_path / "alone", assembly)
    for room in ("stacks", "config", "contract", "app"):
        assert alone.python("-c", f"import {room}").returncode != 0, f"{room} must not be there to import"
    with alone.running():
        deployed = alone.python("-m", "rehearsal", "deploy")
    assert deployed.returncode == 0, deployed.stderr
    for stack in assembly.templates:
        assert f"{stack}: created" in deployed.stderr
