"""Writes a model folder that passes Verify, from `contract/template/`."""

from __future__ import annotations

import shutil
from pathlib import Path

from contract.model import model_name

TEMPLATE = Path(__file__).with_name("template")


class Refused(Exception):
    """The folder can't be written; the message says why."""


def write_model(root: Path, name: str) -> Path:
    """Write `root/model_code/<name>`; refuses a name that the contract refuses and a folder that exists."""
    try:
        model_name(name)
    except ValueError as error:
        raise Refused(f"name: {error}") from None
    folder = root / "model_code" / name
    if folder.exists() or folder.is_symlink():
        raise Refused(f"model_code/{name} exists; allowed: a name that is free")
    _refuse_collision(folder)
    unfinished = folder.with_name(f".{name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for source in sorted(path for path in TEMPLATE.rglob("*") if path.is_file()):
        _write(source, unfinished / source.relative_to(TEMPLATE), name)
    unfinished.rename(folder)
    return folder


def _refuse_collision(folder: Path) -> None:
    plain = folder.name.replace("_", "")
    close = [other.parent.name for other in folder.parent.glob("*/model.yaml")]
    if found := next((other for other in close if other.replace("_", "") == plain), None):
        raise Refused(f"name: found {folder.name!r}, too close to {found!r}; allowed: names that differ without '_'")


def _write(source: Path, target: Path, name: str) -> None:
    # Python files are kept as .txt, so that nothing takes them for modules of this room.
    target = target.with_suffix("") if target.suffix == ".txt" else target
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(source.read_text(encoding="utf-8").replace("{{name}}", name), encoding="utf-8")
