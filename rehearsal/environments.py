"""Interpreters that hold only what an AWS image or runtime holds, so that an import that would fail there fails here.

Each image has a locked `rehearsal/images/<image>.txt`; its environment is made by uv on first use, once per
content of the lock, and shared by every state directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rehearsal.service import Unsupported

IMAGES = Path(__file__).parent / "images"
PYTHON = ">=3.11.4,<3.12"
"""Glue 5.1's and our Lambda runtime's version (3.11.4 brought safe extraction of archives); the XGBoost image's
own is older (docs/fidelity.md says so)."""

# What a child process may know of this machine: how to find programs, certificates and package indexes.
_PASSED_ON = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
_PASSED_ON_PREFIXES = ("UV_", "PIP_")


def interpreter(image: str) -> Path:
    """The python of the environment of `image`, made now if need be (seconds); Unsupported if there is no lock."""
    return _environment(image) / "bin" / "python"


def images() -> list[str]:
    """Every image the rehearsal can stand in for."""
    return sorted(lock.stem for lock in IMAGES.glob("*.txt"))


def scrubbed(**variables: str) -> dict[str, str]:
    """A process environment with nothing of this machine but what finding programs and packages takes."""
    kept = {
        name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONNOUSERSITE": "1", **variables}


def cache() -> Path:
    """Where environments and package caches are kept: `PUSHLINE_CACHE`, else `.cache` beside the rooms."""
    return Path(os.environ.get("PUSHLINE_CACHE") or Path(__file__).resolve().parent.parent / ".cache")


def _environment(image: str) -> Path:
    lock = IMAGES / f"{image}.txt"
    if not lock.is_file():
        raise Unsupported(f"the image {image} is not rehearsed; there are {', '.join(images())}")
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    place = cache() / "environments" / f"{image}-{digest}"
    if not (place / "complete").exists():
        with alone(place.with_suffix(".lock")):
            if not (place / "complete").exists():
                _make(place, lock)
    return place


def _make(place: Path, lock: Path) -> None:
    uv = _uv()
    shutil.rmtree(place, ignore_errors=True)
    quiet = {"check": True, "env": scrubbed(HOME=str(Path.home())), "capture_output": True, "text": True}
    try:
        subprocess.run([uv, "venv", "--quiet", "--python", PYTHON, str(place)], **quiet)  # type: ignore[call-overload]
        subprocess.run(
            [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", str(place / "bin" / "python"), str(lock)],
            **quiet,
        )  # type: ignore[call-overload]
    except subprocess.CalledProcessError as error:
        shutil.rmtree(place, ignore_errors=True)
        raise RuntimeError(f"could not make the environment of {lock.stem}: {error.stderr.strip()}") from None
    (place / "complete").touch()


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise RuntimeError("uv is missing; ./pushline sets it up")
    return found


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
