"""The environment that holds an image's packages, so that a model's tests meet what its jobs will meet."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from contract.framework import Image


class EnvironmentFailed(Exception):
    """uv could not make the environment; the message says why."""


def interpreter(image: Image, requirements: Path | None = None) -> Path:
    """The python of an environment with the image's packages, pytest and a model's own requirements."""
    locks = [image.test_packages, *([requirements] if requirements else [])]
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks) + image.python.encode()).hexdigest()[:12]
    place = _cache() / "environments" / f"verify-{image.lock}-{digest}"
    if not place.is_dir():
        _make(place, image.python, locks)
    return place / "bin" / "python"


def outside_variables() -> dict[str, str]:
    """The process environment without AWS credentials: a model's tests have no business in the account."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTEST_"))}
    # Compiled once and kept, but not in the source tree, which a push may be packed from.
    ours = {"PYTHONPYCACHEPREFIX": str(_cache() / "bytecode"), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    return kept | ours


def _cache() -> Path:
    return Path(os.environ.get("PUSHLINE_CACHE") or Path(__file__).resolve().parent.parent / ".cache")


def _make(place: Path, python: str, locks: list[Path]) -> None:
    """Make it beside its place and move it there, so that what is at the place is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".making-", dir=place.parent))
    try:
        uv = _uv()
        _run([uv, "venv", "--quiet", "--relocatable", "--allow-existing", "--python", python, str(unfinished)])
        into = ["--quiet", "--require-hashes", "--python", str(unfinished / "bin" / "python")]
        for lock in locks:
            _run([uv, "pip", "install", *into, "--no-deps", "--only-binary", ":all:", "--requirements", str(lock)])
        unfinished.rename(place)
    except OSError as error:
        if not place.is_dir():  # else another process was faster
            raise EnvironmentFailed(str(error)) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise EnvironmentFailed("uv is missing; ./pushline and buildspec.yml install it")
    return found


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise EnvironmentFailed(done.stderr.strip() or f"{command[1]} failed with exit code {done.returncode}")
