"""The state directory as a whole: is it ours, of this format, on a disk with room; and forgetting it."""

from __future__ import annotations

import shutil
from pathlib import Path

from rehearsal import server

FORMAT = "1"
"""Raised when an older state can no longer be read."""
_FORMAT_FILE = "format"
_FREE_BYTES = 2_000_000_000


class Unusable(Exception):
    """The state directory can't be used; the message says why and what to do."""


def prepare(state_dir: Path) -> None:
    """Make the directory, or check that what is there is ours and can be read, on a machine that has git."""
    require_git()
    _require_no_file(state_dir)
    if _occupied(state_dir) and not _ours(state_dir):
        raise Unusable(f"{state_dir} holds files that are not the rehearsal's; choose another --state-dir")
    if _ours(state_dir) and (found := (state_dir / _FORMAT_FILE).read_text().strip()) != FORMAT:
        raise Unusable(
            f"{state_dir} was written by another version of Pushline (format {found}, this is {FORMAT}):"
            f" `./pushline down --purge --state-dir {state_dir}` forgets it"
        )
    state_dir.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(state_dir).free) < _FREE_BYTES:
        raise Unusable(
            f"only {free / 1e9:.1f} GB are free on the disk of {state_dir}; a rehearsal takes"
            f" {_FREE_BYTES / 1e9:.0f} GB: make room, or choose another --state-dir"
        )
    (state_dir / _FORMAT_FILE).write_text(FORMAT + "\n")


def purge(state_dir: Path) -> None:
    """Stop what runs there and delete it all; Unusable if the directory is not the rehearsal's."""
    if not state_dir.exists():
        return
    _require_no_file(state_dir)
    if _occupied(state_dir) and not _ours(state_dir):
        raise Unusable(f"{state_dir} holds files that are not the rehearsal's; nothing was deleted")
    server.down(state_dir)
    shutil.rmtree(state_dir)


def require_git() -> None:
    """Unusable without git: the rehearsal's CodeCommit is real git."""
    if shutil.which("git") is None:
        raise Unusable("git is missing: install it (Debian: apt-get install git; macOS: xcode-select --install)")


def _require_no_file(state_dir: Path) -> None:
    if state_dir.exists() and not state_dir.is_dir():
        raise Unusable(f"{state_dir} is a file; choose another --state-dir")


def _ours(state_dir: Path) -> bool:
    return (state_dir / _FORMAT_FILE).is_file()


def _occupied(state_dir: Path) -> bool:
    return state_dir.is_dir() and any(state_dir.iterdir())
