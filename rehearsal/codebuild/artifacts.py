"""Zips that come into a build and go out of it."""

from __future__ import annotations

import os
import re
import stat
import zipfile
from pathlib import Path, PurePosixPath

from rehearsal.codebuild.buildspec import Artifact

LARGEST = 5 * 1024**3
"""CodePipeline's own limit of an artifact's size."""


class ArtifactError(Exception):
    """An archive that is not taken, or an artifact with nothing in it."""


def unpack(archive: Path, into: Path) -> None:
    """Unpack a zip, never writing outside of `into`; links are made last, so nothing is written through them."""
    into.mkdir(parents=True, exist_ok=True)
    links: list[tuple[Path, str]] = []
    with zipfile.ZipFile(archive) as source:
        if sum(item.file_size for item in source.infolist()) > LARGEST:
            raise ArtifactError("the input artifact is larger than 5 GB")
        for item in source.infolist():
            target = into / _inside(item.filename)
            mode = item.external_attr >> 16
            if stat.S_ISLNK(mode):
                links.append((target, source.read(item).decode()))
            elif item.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                with source.open(item) as reader, target.open("wb") as writer:
                    while chunk := reader.read(1 << 20):
                        writer.write(chunk)
                target.chmod(0o755 if mode & 0o100 else 0o644)
    for target, points_to in links:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(points_to)


def pack(artifact: Artifact, source: Path, to: Path) -> None:
    """Zip what the artifact names; ArtifactError as CodeBuild words it if that is nothing."""
    base = (source / artifact.base_directory).resolve()
    if not base.is_dir() or not base.is_relative_to(source.resolve()):
        raise ArtifactError(f"no matching base directory path found for {artifact.base_directory}")
    wanted = [_pattern(p) for p in artifact.files]
    excluded = [_pattern(p) for p in artifact.excluded]
    found = [
        path
        for path in _files(base)
        if any(p.fullmatch(path) for p in wanted) and not any(p.fullmatch(path) for p in excluded)
    ]
    if not found:
        raise ArtifactError(f"no matching artifact paths found for {', '.join(artifact.files)}")
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in found:
            archive.write(base / path, PurePosixPath(path).name if artifact.discard_paths else path)


def _files(base: Path) -> list[str]:
    """Regular files below `base`, links not followed."""
    found = []
    for folder, _, names in os.walk(base):
        places = [Path(folder) / name for name in names]
        found += [p.relative_to(base).as_posix() for p in places if p.is_file() and not p.is_symlink()]
    return sorted(found)


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ArtifactError(f"the input artifact has a path out of its folder: {name}")
    return str(path)


def _pattern(glob: str) -> re.Pattern[str]:
    """CodeBuild's globs: `**` any folders, `*` within one; `**/*` is everything."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob.removeprefix("./"))
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(words.get(part, re.escape(part)) for part in parts))
