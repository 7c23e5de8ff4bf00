"""The set-up script: sets up once, says in a line what is wrong with the machine, and hands over to the verb's room.

Each test works on a copy in a folder of its own, with a lock that holds one small wheel and rooms that only say how
they were called; uv and Python are the real ones.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from argparse import Namespace
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

from rehearsal import cli

SCRIPT = Path(__file__).parents[1] / "pushline"
ROOM = "import json, sys\nprint(json.dumps([{room!r}, *sys.argv[1:]]))\n"
Finished = subprocess.CompletedProcess[str]


class Project:
    """A copy of the script with a lock and rooms of its own; no package index and no downloads."""

    def __init__(self, root: Path) -> None:
        self.root, self.uv_calls = root / "project", root / "uv-calls"
        self.root.mkdir()
        shutil.copy(SCRIPT, self.root / "pushline")
        self.lock(wheel(root, "py3-none-any"))
        for room in ("rehearsal", "contract", "bench", "pytest"):
            (self.root / room).mkdir()
            (self.root / room / "__main__.py").write_text(ROOM.format(room=room))
        (self.root / "app.py").write_text(ROOM.format(room="app.py"))
        self.programs = root / "programs"
        self.programs.mkdir()
        self.program("uv", f'echo "$@" >> "{self.uv_calls}"\nexec "{Path(sys.executable).with_name("uv")}" "$@"')
        self.program("git", "exit 0")
        (self.programs / "python3.11").symlink_to(Path(sys.executable).resolve())
        self.environment = {"PATH": f"{self.programs}", "HOME": f"{root}", "UV_CACHE_DIR": f"{root / 'cache'}",
                            "UV_OFFLINE": "1"}  # fmt: skip

    def program(self, name: str, body: str) -> None:
        """Put a shell script on the PATH."""
        (self.programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (self.programs / name).chmod(0o755)

    def lock(self, wheel: Path) -> None:
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        (self.root / "requirements-dev.txt").write_text(f"nothing @ {wheel.as_uri()} --hash=sha256:{digest}\n")

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, self.root / "pushline", *arguments], text=True, cwd="/",
                                env={**self.environment, **environment}, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)  # fmt: skip

    def run(self, *arguments: str, **environment: str) -> Finished:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def called(self, finished: Finished) -> list[list[str]]:
        """How the rooms were called."""
        assert finished.returncode == 0, finished.stderr
        return [json.loads(line) for line in finished.stdout.splitlines()]

    def module(self) -> Any:
        """The copy as a module of this process."""
        loader = SourceFileLoader("pushline_copy", str(self.root / "pushline"))
        spec = spec_from_loader(loader.name, loader)
        assert spec is not None
        module = module_from_spec(spec)
        loader.exec_module(module)
        return module


def wheel(folder: Path, tag: str) -> Path:
    path = folder / f"nothing-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("nothing.py", "")
        archive.writestr("nothing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1.0\n")
        archive.writestr("nothing-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr("nothing-1.0.dist-info/RECORD", "")
    return path


def explained(finished: Finished, *words: str) -> None:
    """It stopped with an explanation that holds `words`, and without a traceback."""
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    assert all(word in finished.stderr for word in words), finished.stderr


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_second_start_installs_nothing_and_starts_neither_uv_nor_pip(project: Project) -> None:
    first = project.run("status")
    assert "set up in" in first.stderr
    assert (project.root / ".venv" / "bin" / "python").exists()
    before = project.uv_calls.read_text()
    second = project.run("status", "--json")
    assert project.called(second) == [["rehearsal", "status", "--json"]]
    assert second.stderr == ""
    assert project.uv_calls.read_text() == before


def test_a_changed_lock_is_installed(project: Project, tmp_path: Path) -> None:
    project.run("status")
    (tmp_path / "newer").mkdir()
    project.lock(wheel(tmp_path / "newer", "py3-none-any"))
    assert "set up in" in project.run("status").stderr


def test_two_first_starts_at_once_make_one_environment(project: Project) -> None:
    both = [project.start("status"), project.start("status")]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "".join(said).count("set up in") == 1


def test_an_interrupted_change_of_the_lock_is_not_taken_for_the_old_one(project: Project, tmp_path: Path) -> None:
    project.run("status")
    held = (project.root / "requirements-dev.txt").read_text()
    (project.root / "requirements-dev.txt").write_text("nothing==2.0 --hash=sha256:" + "0" * 64)
    explained(project.run("status"), "could not be installed")
    (project.root / "requirements-dev.txt").write_text(held)
    assert "set up in" in project.run("status").stderr


@pytest.mark.parametrize(("given", "asked"), [
    (["up", "--port", "0"], [["rehearsal", "up", "--port", "0"]]),
    (["new", "churn"], [["contract", "new", "churn"]]),
    (["run", "m", "--sample"], [["contract", "run", "m", "--sample"]]),
    (["test", "-k", "x"], [["pytest", "-n", "4", "-k", "x"]]),
    (["bench"], [["bench"]]),
    (["synth"], [["app.py"]]),
    (["rehearse"], [["app.py"], ["rehearsal", "deploy"]]),
    (["deploy", "--concurrency", "4"], [["the CDK CLI", "deploy", "--all", "--concurrency", "4"]]),
    (["cdk", "bootstrap", "aws://1/r"], [["the CDK CLI", "bootstrap", "aws://1/r"]]),
    (["demo", "--keep"], [["app.py"], ["rehearsal", "demo", "--keep"]]),
])  # fmt: skip
def test_each_verb_goes_to_its_room(
    project: Project, monkeypatch: pytest.MonkeyPatch, given: list[str], asked: list[list[str]]
) -> None:
    module = project.module()
    calls: list[list[str]] = []
    monkeypatch.setattr(module, "set_up", lambda: None)
    monkeypatch.setattr(module, "cdk", lambda: "the CDK CLI")
    monkeypatch.setattr(module, "call", lambda *command: calls.append(list(command[1:])) or 0)
    monkeypatch.delenv("PUSHLINE_TEST_WORKERS", raising=False)
    assert module.run_verb(given) == 0
    assert [command[1:] if command[0] == "-m" else command for command in calls] == asked


def test_the_exit_code_is_the_rooms(project: Project) -> None:
    (project.root / "rehearsal" / "__main__.py").write_text("raise SystemExit(124)")
    assert project.run("wait").returncode == 124
    (project.root / "app.py").write_text("raise SystemExit(3)")
    rehearse = project.run("rehearse")
    assert (rehearse.returncode, rehearse.stdout) == (3, "")


def test_an_unknown_verb_names_the_verbs_before_anything_is_installed(project: Project) -> None:
    finished = project.run("dmeo")
    explained(finished, "'dmeo'", "demo", "verify", "audit")
    assert len(finished.stderr.splitlines()) == 1
    assert not (project.root / ".venv").exists()


def test_help_installs_nothing(project: Project) -> None:
    finished = project.run("--help")
    assert finished.returncode == 0
    assert "./pushline demo" in finished.stdout
    assert not (project.root / ".venv").exists()


def test_the_scripts_verbs_are_the_rehearsals(project: Project) -> None:
    """`deploy` is AWS's; the rehearsal's own is `rehearse`."""
    module = project.module()
    ours = {command.name or str(getattr(command.callback, "__name__", "")) for command in cli.app.registered_commands}
    assert {*module.REHEARSAL, "demo"} == (ours - {"deploy"}) | {"rehearse"}
    mentioned = module.USAGE.split()
    assert [verb for verb in [*module.OWN, *module.CONTRACT, *module.REHEARSAL]
            if verb not in mentioned and f"`./pushline {verb}" not in module.USAGE] == []  # fmt: skip


def test_git_is_missing(project: Project) -> None:
    (project.programs / "git").unlink()
    finished = project.run("demo")
    explained(finished, "git is missing", "install it")
    assert len(finished.stderr.splitlines()) == 1
    assert project.run("synth").returncode == 0  # a template needs no git


def test_there_is_no_room_on_the_disk(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = project.module()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Namespace(total=10**12, used=10**12, free=10**9))
    assert module.run_verb(["synth"]) == 1
    said = capsys.readouterr().err
    assert said == "pushline: only 1.0 GB are free on the disk of project; set-up takes about 4 GB: make room\n"
    assert not (project.root / ".venv").exists()


@pytest.mark.parametrize(("attribute", "value", "told"), [
    (("os", "name"), "nt", "on Windows use WSL"), (("sys", "version_info"), (3, 7, 9), "Python 3.8"),
])  # fmt: skip
def test_the_platform_is_not_one_of_ours(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    attribute: tuple[str, str], value: Any, told: str,
) -> None:  # fmt: skip
    module = project.module()
    with monkeypatch.context() as patched:
        patched.setattr(getattr(module, attribute[0]), attribute[1], value)
        code = module.run_verb(["status"])
    said = capsys.readouterr().err
    assert (code, len(said.splitlines())) == (1, 1)
    assert told in said


def test_no_wheel_fits_the_platform(project: Project, tmp_path: Path) -> None:
    project.lock(wheel(tmp_path, "py3-none-win_arm64"))
    explained(project.run("status"), "win_arm64", "see 'Platforms' in README.md")


def test_no_python_is_there_and_none_can_be_fetched(project: Project, tmp_path: Path) -> None:
    nowhere = {"UV_PYTHON_INSTALL_DIR": str(tmp_path / "pythons"), "UV_PYTHON_PREFERENCE": "only-managed"}
    explained(project.run("status", UV_PYTHON_DOWNLOADS="never", **nowhere), "install Python 3.11 and try again")


def test_neither_uv_nor_pip_is_there(project: Project) -> None:
    (project.programs / "uv").unlink()
    explained(project.run("status", PYTHONPATH="", PIP_NO_INDEX="1"), "install uv", "try again")


def test_an_environment_that_lost_its_python_is_made_anew(project: Project) -> None:
    project.run("status")
    python = project.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3.11")
    finished = project.run("status")
    assert project.called(finished) == [["rehearsal", "status"]]
    assert "making it anew" in finished.stderr


def test_an_environment_that_is_no_folder_is_told(project: Project) -> None:
    (project.root / ".venv").write_text("")
    explained(project.run("status"), ".venv is not a directory: remove it")


def test_a_missing_lock_is_told(project: Project) -> None:
    (project.root / "requirements-dev.txt").unlink()
    explained(project.run("status"), "requirements-dev.txt")


def test_the_cdk_cli_is_whole_or_not_there(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.run("status")
    npm: Callable[[str], None] = lambda body: (project.root / ".venv" / "bin" / "npm").write_text(  # noqa: E731
        f"#!/bin/sh\n{body}\n"
    )
    npm("echo 'no such registry' >&2; exit 1")
    (project.root / ".venv" / "bin" / "npm").chmod(0o755)
    module = project.module()
    assert module.run_verb(["deploy"]) == 1
    assert "no such registry" in capsys.readouterr().err
    assert [path for path in module.TOOLS.iterdir() if "cdk" in path.name] == []
    npm('mkdir -p "$5/node_modules/aws-cdk/bin"; echo "$6" > "$5/node_modules/aws-cdk/bin/cdk"')
    assert Path(module.cdk()).read_text() == f"aws-cdk@{module.CDK_VERSION}\n"
    npm("exit 1")
    assert Path(module.cdk()).is_file()


def test_the_script_is_python_38_and_standard_library_only() -> None:
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 8))
    imported = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import)
                for alias in node.names}  # fmt: skip
    imported |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names
    assert os.access(SCRIPT, os.X_OK)
