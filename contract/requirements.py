"""A model's locked requirements.txt: only pinned packages with hashes, fetched as wheels into the bundle."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from config.document import Invalid, Problem
from contract.model import Model

_PINNED = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._, -]+\])?==[A-Za-z0-9.!+_-]+"
    r"(\s*;[^#]*?)?(\s+--hash=sha256:[0-9a-f]{64})+"
)
ALLOWED = "allowed: name==version --hash=sha256:… as `uv pip compile --generate-hashes` writes, from the package index"


def requirements_file(root: Path, model: Model) -> Path | None:
    """The model's requirements.txt, if it names any package."""
    path = root / model.folder / "requirements.txt"
    return path if path.is_file() and _requirements(path) else None


def requirements_problems(root: Path, model: Model) -> list[Problem]:
    """Every line that is not a pinned package with its hashes."""
    path = root / model.folder / "requirements.txt"
    if not path.is_file():
        return []
    name = f"{model.folder}/requirements.txt"
    return [
        Problem(name, line, "", f"found {text[:80]!r}; {ALLOWED}")
        for line, text in _requirements(path)
        if not _PINNED.fullmatch(text)
    ]


def wheels(root: Path, model: Model, python: Path) -> dict[str, bytes]:
    """The wheels of the model's requirements for the image's `python`, by file name; Invalid when one is missing."""
    path = requirements_file(root, model)
    if path is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        _download(path, folder, model, python)
        return {wheel.name: wheel.read_bytes() for wheel in sorted(Path(folder).glob("*.whl"))}


def _download(path: Path, folder: str, model: Model, python: Path) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    command = [str(python), "-m", "pip", "download", *options, "--dest", folder, "--requirement", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
        raise Invalid([Problem(f"{model.folder}/requirements.txt", 0, "", f"can't be fetched: {' '.join(errors)}")])


def _requirements(path: Path) -> list[tuple[int, str]]:
    """The logical lines without comments, each with the number of its first line."""
    found: list[tuple[int, str]] = []
    text, start = "", 0
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        start = start if text else number
        text += re.sub(r"(^|\s)#.*", "", line)
        if text.endswith("\\"):
            text = text[:-1]
            continue
        if text.strip():
            found.append((start, " ".join(text.split())))
        text = ""
    return [*found, (start, text.strip())] if text.strip() else found
