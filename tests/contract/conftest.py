"""A small repository with one model, for the contract's tests to break."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import Guardrails, Invalid, load_settings
from contract import load_models
from contract.new import write_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def guardrails() -> Guardrails:
    return load_settings().guardrails


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the model `buy` as `new` writes it, and code that models share."""
    root = tmp_path / "repository"
    (root / "model_code" / "shared").mkdir(parents=True)
    (root / "model_code" / "__init__.py").touch()
    (root / "model_code" / "shared" / "__init__.py").touch()
    (root / "model_code" / "shared" / "dates.py").write_text("WEEK = 7\n")
    shutil.copytree(ROOT / "config", root / "config", ignore=shutil.ignore_patterns("__pycache__"))
    write_model(root, "buy")
    return root


Change = Callable[..., None]


@pytest.fixture
def change(repository: Path) -> Change:
    """Set keys of the model's model.yaml by dotted name; `...` removes one."""

    def apply(**values: Any) -> None:
        path = repository / "model_code" / "buy" / "model.yaml"
        data = yaml.safe_load(path.read_text())
        for key, value in values.items():
            *outer, last = key.split("__")
            place = data
            for part in outer:
                place = place.setdefault(part, {})
            if value is ...:
                del place[last]
            else:
                place[last] = value
        path.write_text(yaml.safe_dump(data, sort_keys=False))

    return apply


@pytest.fixture
def problems(repository: Path, guardrails: Guardrails) -> Callable[[], str]:
    """What is wrong with the repository's models."""

    def find() -> str:
        with pytest.raises(Invalid) as caught:
            load_models(repository, guardrails)
        return str(caught.value)

    return find
