"""Bare git repositories on disk, and git's smart HTTP protocol over them."""

from __future__ import annotations

import datetime as dt
import functools
import os
import shutil
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rehearsal.environments import scrubbed

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""What git calls a tree without entries; comparing with it lists everything."""


class GitError(Exception):
    """A git command that failed, with git's own words."""


@dataclass(frozen=True)
class Entry:
    """A line of `git ls-tree`."""

    mode: str
    kind: str
    id: str
    path: str


@dataclass(frozen=True)
class Difference:
    """One path that two trees do not agree on; git's ids, modes and status letter."""

    status: str
    path: str
    before_mode: str
    before_id: str
    after_mode: str
    after_id: str


class Repository:
    """One bare repository."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = _lock(path)

    def create(self) -> None:
        """Make it; pushes of any shape are allowed, as the hosting service allows them, and no hook ever runs."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        run("init", "--quiet", "--bare", "--initial-branch=main", "--template=", str(self.path))
        for key, value in (
            ("http.receivepack", "true"),
            ("uploadpack.allowFilter", "true"),
            ("core.hooksPath", os.devnull),
            ("receive.autogc", "false"),
        ):
            self.git("config", key, value)

    def delete(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def git(self, *arguments: str) -> bytes:
        return run("--git-dir", str(self.path), *arguments)

    def references(self) -> dict[str, str]:
        """Branches and tags by full name, with the commit each points to."""
        # %(*objectname) is the commit behind an annotated tag
        lines = self.git("for-each-ref", "--format=%(refname) %(objectname) %(*objectname)", "refs/heads", "refs/tags")
        rows = [line.split(" ") for line in lines.decode().splitlines()]
        return {name: peeled or target for name, target, peeled in rows}

    def resolve(self, specifier: str) -> str | None:
        """The commit a branch, tag, full reference, HEAD or commit id means; None if there is none."""
        for candidate in (f"refs/heads/{specifier}", f"refs/tags/{specifier}", specifier):
            if candidate.startswith("refs/") or candidate == "HEAD" or _is_id(candidate):
                try:
                    found = self.git("rev-parse", "--verify", "--quiet", "--end-of-options", candidate + "^{commit}")
                except GitError:
                    continue
                return found.decode().strip()
        return None

    def default_branch(self) -> str | None:
        """The branch HEAD names, if it exists."""
        name = self.git("symbolic-ref", "HEAD").decode().strip()
        return name.removeprefix("refs/heads/") if name in self.references() else None

    def set_default_branch(self, branch: str) -> None:
        self.git("symbolic-ref", "HEAD", f"refs/heads/{branch}")

    def tree(self, commit: str, path: str = "", *, recursive: bool = False) -> list[Entry]:
        """Entries of the folder `path` of a commit (of the file itself, if it is one)."""
        flags = ["-r"] if recursive else []
        place = ["--", path] if path else []
        listed = self.git("ls-tree", "-z", "--full-tree", *flags, commit, *place).decode()
        rows = [line.split("\t", 1) for line in listed.split("\0") if line]
        return [_entry(meta, path) for meta, path in rows]

    def blob(self, blob_id: str) -> bytes:
        return self.git("cat-file", "blob", blob_id)

    def differences(self, before: str | None, after: str) -> list[Difference]:
        """Paths that differ, without guessing renames (a move is a deletion and an addition)."""
        raw = self.git("diff-tree", "-r", "-z", "--no-renames", before or EMPTY_TREE, after).decode()
        fields = raw.split("\0")
        return [_difference(meta, path) for meta, path in zip(fields[::2], fields[1::2], strict=False)]

    def commit(self, commit: str) -> dict[str, object]:
        """Parsed commit object: tree, parents, message and the raw author and committer lines."""
        header, _, message = self.git("cat-file", "commit", commit).decode(errors="replace").partition("\n\n")
        parsed: dict[str, object] = {"parents": [], "message": message}
        for line in header.splitlines():
            key, _, value = line.partition(" ")
            if key == "parent":
                parsed["parents"] = [*parsed["parents"], value]  # type: ignore[misc]
            elif key in ("tree", "author", "committer"):
                parsed[key] = value
        return parsed

    def archive(self, commit: str, to: Path) -> None:
        """The commit's files as a zip, without history."""
        self.git("archive", "--format=zip", f"--output={to}", commit)

    def serve(
        self, method: str, service_path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Answer one request of git's smart HTTP protocol, by git itself."""
        environment = _environment() | {
            "GIT_PROJECT_ROOT": str(self.path.parent),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": "rehearsal",
            "PATH_INFO": f"/{self.path.name}/{service_path}",
            "REQUEST_METHOD": method,
            "QUERY_STRING": query,
            "CONTENT_TYPE": headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
            "REMOTE_ADDR": "127.0.0.1",
            "GIT_PROTOCOL": headers.get("git-protocol", ""),
        }
        done = subprocess.run([_backend()], input=body, env=environment, capture_output=True, check=False)
        if not done.stdout:
            return 500, {"content-type": "text/plain"}, done.stderr or b"git http-backend said nothing"
        return _cgi(done.stdout)


def run(*arguments: str) -> bytes:
    """Output of a git command; GitError with git's message if it fails."""
    done = subprocess.run(["git", *arguments], env=_environment(), capture_output=True, check=False)
    if done.returncode:
        raise GitError(done.stderr.decode(errors="replace").strip())
    return done.stdout


def iso(person: str) -> str:
    """The time of an author line (`Name <mail> 1700000000 +0100`) in ISO 8601, UTC."""
    seconds = int(person.rsplit(" ", 2)[1])
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _environment() -> dict[str, str]:
    """Without this user's git settings: what is served may not depend on them."""
    return scrubbed(
        GIT_CONFIG_NOSYSTEM="1",
        GIT_CONFIG_GLOBAL=os.devnull,
        HOME=os.devnull,
        GIT_CONFIG_COUNT="1",
        GIT_CONFIG_KEY_0="safe.directory",
        GIT_CONFIG_VALUE_0="*",
    )


@functools.cache
def _lock(path: Path) -> threading.RLock:
    return threading.RLock()


@functools.cache
def _backend() -> str:
    return str(Path(run("--exec-path").decode().strip()) / "git-http-backend")


def _is_id(text: str) -> bool:
    return len(text) == 40 and all(letter in "0123456789abcdef" for letter in text)


def _entry(meta: str, path: str) -> Entry:
    mode, kind, identifier = meta.split(" ")
    return Entry(mode, kind, identifier, path)


def _difference(meta: str, path: str) -> Difference:
    before_mode, after_mode, before_id, after_id, status = meta.removeprefix(":").split(" ")
    return Difference(status[0], path, before_mode, before_id, after_mode, after_id)


def _cgi(output: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, content = output.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
    status = headers.pop("Status", "200 OK")
    return int(status.split(" ")[0]), headers, content
