"""Fifty models: the app synthesizes, and no stack grows with the number of models."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contract.new import write_model
from tests.conftest import ROOT, Assembly

MODELS = 50
MOST_RESOURCES = 250


def synthesized(root: Path, models: int) -> Assembly:
    """The assembly of this app over a repository with so many models as `pushline new` writes them."""
    (root / "model_code").mkdir(parents=True)
    for number in range(models):
        write_model(root, f"model_{number:02}")
    for name in ("app.py", "cdk.json"):
        shutil.copy(ROOT / name, root)  # the app takes its models from beside itself
    variables = {**os.environ, "CDK_OUTDIR": str(root / "cdk.out"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, root / "app.py"], cwd=root, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Assembly(root / "cdk.out")


def sizes(assembly: Assembly) -> dict[str, int]:
    return {stack: len(template["Resources"]) for stack, template in assembly.templates.items()}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    return sizes(synthesized(tmp_path_factory.mktemp("many"), MODELS))


def test_every_model_has_its_stacks_and_none_passes_the_limit(many: dict[str, int]) -> None:
    titles = {stack.split("-")[0] for stack in many} - {"Pushline"}
    assert len(titles) == MODELS
    assert max(many.values()) < MOST_RESOURCES


def test_no_stack_grows_with_the_number_of_models(many: dict[str, int], tmp_path: Path) -> None:
    alone = sizes(synthesized(tmp_path / "one", 1))
    assert alone
    assert {stack: many[stack] for stack in alone} == alone
    kinds = {(stack.partition("-")[2], size) for stack, size in many.items() if not stack.startswith("Pushline-")}
    assert len(kinds) == len({kind for kind, _ in kinds})
