"""Verify: everything that must hold before a model's code is worth a training job, all problems at once.

A push that passes goes on with the bundle and `retraining.json` (contract/retraining.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from config.document import Invalid, Problem, read
from config.settings import Settings, load_settings
from contract.bundle import Bundle, pack
from contract.deployed import differences
from contract.environment import EnvironmentFailed, interpreter, outside_variables
from contract.folder import load_model, sample_request
from contract.model import Model
from contract.requirements import requirements_file, requirements_problems, wheels
from contract.source import python_files, source_problems

HERE = Path(__file__).resolve().parent
TEST_SECONDS = 900
SHOWN_TEST_LINES = 60

Say = Callable[[str], None]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Verified:
    """A model that passed, and its bundle."""

    model: Model
    bundle: Bundle


def verify(root: Path, name: str, *, deployed: Mapping[str, object] | None, say: Say) -> Verified:
    """Check the model `root/model_code/<name>` and pack it, or Invalid with everything that is wrong."""
    settings = load_settings(root / "config" / "platform.yaml")
    model, problems = _timed(say, "model.yaml, guardrails, files", lambda: _loaded(root, name, settings))
    paths = model.paths if model else (f"model_code/{name}",)
    broken = _timed(say, "syntax and imports", lambda: source_problems(root, paths))
    problems += broken + _timed(say, "lint", lambda: _lint(root, paths))
    if model is None:
        raise Invalid(problems)
    problems += requirements_problems(root, model) + _not_deployed(root, model, deployed) + _no_sample(root, model)
    if broken or any("requirements.txt" in problem.file for problem in problems):
        raise Invalid(problems)
    python = _timed(say, "environment of the image", lambda: _environment(root, model))
    if problems := problems + _timed(say, "the model's own tests", lambda: _tests(root, model, python, say)):
        raise Invalid(problems)
    bundle = _timed(say, "packaging", lambda: pack(root, model, settings.guardrails, wheels(root, model, python)))
    return Verified(model, bundle)


def _loaded(root: Path, name: str, settings: Settings) -> tuple[Model | None, list[Problem]]:
    """The model, or what is wrong with it: the checks of its code go on, so that one push shows everything."""
    try:
        return load_model(root, name, settings.guardrails), []
    except Invalid as error:
        return None, list(error.problems)


def _timed(say: Say, step: str, work: Callable[[], Result]) -> Result:
    began = time.monotonic()
    result = work()
    say(f"  {step}: {time.monotonic() - began:.1f} s")
    return result


def _not_deployed(root: Path, model: Model, deployed: Mapping[str, object] | None) -> list[Problem]:
    if deployed is None:
        return []
    document = read(root / model.folder / "model.yaml", f"{model.folder}/model.yaml")
    return [document.problem(tuple(key.split(".")), text) for key, text in differences(model, deployed)]


def _no_sample(root: Path, model: Model) -> list[Problem]:
    if sample_request(root, model):
        return []
    text = "has no sample_request.json or sample_request.csv; the smoke test of every release sends it"
    return [Problem(f"{model.folder}/tests", 0, "", text)]


def _lint(root: Path, paths: Sequence[str]) -> list[Problem]:
    files = [str(path.relative_to(root)) for path in python_files(root, paths)]
    options = ["--config", str(HERE / "lint.toml"), "--output-format", "json", "--no-cache", "--force-exclude"]
    command = [sys.executable, "-m", "ruff", "check", *options, *files]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=root)
    if done.returncode not in (0, 1):
        return [Problem(paths[0], 0, "", f"lint could not run: {done.stderr.strip()}")]
    return [
        Problem(Path(found["filename"]).relative_to(root).as_posix(), found["location"]["row"], "",
                f"{found['code']} {found['message']}")
        for found in json.loads(done.stdout)
        if found["code"] not in (None, "invalid-syntax")
    ]  # fmt: skip


def _environment(root: Path, model: Model) -> Path:
    try:
        return interpreter(model.framework.image, requirements_file(root, model))
    except EnvironmentFailed as error:
        raise Invalid([Problem(model.folder, 0, "", f"the image's environment can't be made: {error}")]) from None


def _tests(root: Path, model: Model, python: Path, say: Say) -> list[Problem]:
    folder = root / model.folder / "tests"
    if not folder.is_dir():
        say(f"  {model.folder} has no tests/")
        return []
    options = ["-c", str(HERE / "pytest.ini"), "--rootdir", str(root), "--confcutdir", str(root / model.folder)]
    command = [str(python), "-m", "pytest", *options, str(folder)]
    variables = {**outside_variables(), "PYTHONPATH": str(root)}
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=root, env=variables,
                              timeout=TEST_SECONDS, stdin=subprocess.DEVNULL)  # fmt: skip
    except subprocess.TimeoutExpired:
        return [Problem(f"{model.folder}/tests", 0, "", f"took longer than {TEST_SECONDS} s; allowed: less")]
    lines = (done.stdout + done.stderr).strip().splitlines()
    if done.returncode in (0, 5):  # 5: no test was found
        say(f"  {lines[-1] if lines else 'no tests'}")
        return []
    shown = "\n    ".join(lines[-SHOWN_TEST_LINES:])
    return [Problem(f"{model.folder}/tests", 0, "", f"failed:\n    {shown}")]


def deployed_from(variables: Mapping[str, str]) -> Mapping[str, object] | None:
    """What the stacks were last deployed with, as the build project's environment says; None outside of it."""
    text = variables.get("DEPLOYED")
    return None if not text else dict(json.loads(text))


def repository_root(folder: Path) -> Path:
    """The repository that a model folder is in; Invalid when the folder is not `model_code/<name>`."""
    place = Path(os.path.abspath(folder))
    if place.parent.name != "model_code":
        text = "is not a model's folder; allowed: model_code/<name>"
        raise Invalid([Problem(str(folder), 0, "", text)])
    return place.parent.parent
