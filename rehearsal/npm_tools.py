"""Tools from npm that only tests and reviewers need, fetched once into the cache and never shipped."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rehearsal.environments import cache

IAM_SIMULATE = ("@cloud-copilot/iam-simulate", "0.1.173")
"""An IAM evaluator that shares no code with ministack's; it brings AWS's list of actions, resources and keys."""


class NotFetched(Exception):
    """npm could not fetch a tool; the message says which."""


def fetch(package: str, version: str) -> Path:
    """The folder `node_modules` that holds the package; made beside its place, so that what is there is whole."""
    place = cache() / "tools" / f"{package.rpartition('/')[2]}-{version}"
    if not (place / "node_modules" / package).is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".npm-", dir=place.parent))
        try:
            _install(unfinished, f"{package}@{version}")
            unfinished.rename(place)
        except OSError:
            if not place.is_dir():  # else another start was faster
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return place / "node_modules"


def node() -> str:
    """The Node of the interpreter's own environment."""
    return str(Path(sys.executable).with_name("node"))


def _install(folder: Path, package: str) -> None:
    npm = str(Path(sys.executable).with_name("npm"))
    command = [npm, "install", "--silent", "--no-save", "--no-audit", "--no-fund", "--prefix", str(folder), package]
    # In the caller's environment, which says how the network is reached: proxies, certificates, the registry.
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotFetched(f"npm could not fetch {package}: look at the network\n{done.stderr.strip()}")
