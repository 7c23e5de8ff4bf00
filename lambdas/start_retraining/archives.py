"""What a push changed, where the sources are a zip: compared, file by file, with the zip that was last routed."""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from botocore.exceptions import ClientError

from lambdas.start_retraining.events import Ignored, Place, Push, Watched
from lambdas.start_retraining.route import MODELS, Changed
from lambdas.start_retraining.routed import Routed, is_absent

MEMORY = 16 * 1024 * 1024
"""A larger archive is read from disk."""


class Archives:
    """The archives that are pushed."""

    def __init__(self, s3: Any, watched: Watched, last: Routed) -> None:
        self._s3, self._watched, self._last = s3, watched, last
        self._found: tuple[str, Mapping[str, str]] | None = None

    def unrouted(self, now: dt.datetime) -> Push | None:
        """The newest version, if it was not routed; nobody but its host knows what a connection's branch holds."""
        place = self._watched.archive
        version = self._version(place) if place else ""
        return Push(version, "", now, place) if version and not self._last.done(version) else None

    def placed(self, push: Push, now: dt.datetime) -> Push:
        """The push, as the next to be routed, with the version that is there now."""
        placed = replace(push, turn=self._last.turn)
        version, _ = self._read(push)
        # An event of an earlier version, late or told again, does not say when this one was pushed.
        same = version in (push.commit, "") or not self._watched.archive
        return placed if same else replace(placed, commit=version, time=now)

    def changed(self, push: Push) -> Changed:
        """What the push changed; everything where nothing was routed before."""
        files = self._files(push)
        if self._last.files is None:
            parts = (path.split("/") for path in files)
            return Changed(everything=frozenset(part[1] for part in parts if len(part) > 2 and part[0] == MODELS))
        before = self._last.files
        present = frozenset(path for path, checksum in files.items() if before.get(path) != checksum)
        return Changed(present, frozenset(before.keys() - files.keys()))

    def is_model(self, push: Push, name: str) -> bool:
        """Whether the folder of models that was pushed has a model.yaml."""
        return f"{MODELS}/{name}/model.yaml" in self._files(push)

    def routed(self, push: Push, owed: Iterable[str], gone: Iterable[str]) -> None:
        """What the next push is compared with. Kept last: a push that was not routed to the end is compared again."""
        self._last.keep(push.commit, owed=owed, gone=gone, files=self._files(push))

    def any(self) -> bool:
        """Whether anything was ever pushed."""
        return self._last.files is not None

    def _version(self, place: Place) -> str:
        try:
            return str(self._s3.head_object(Bucket=place[0], Key=place[1])["VersionId"])
        except ClientError as error:
            if is_absent(self._s3, place, error):
                return ""
            raise

    def _files(self, push: Push) -> Mapping[str, str]:
        _, files = self._read(push)
        return files

    def _read(self, push: Push) -> tuple[str, Mapping[str, str]]:
        """The newest archive's version and its files, path to checksum: a late event must not bring back older ones.

        The archive's directory tells size and CRC-32 of each file, so that nothing is unpacked.
        """
        if self._found is None:
            assert push.archive is not None
            answer = self._s3.get_object(Bucket=push.archive[0], Key=push.archive[1])
            self._found = str(answer.get("VersionId", "")), _checksums(answer["Body"])
        return self._found


def _checksums(body: Any) -> dict[str, str]:
    with tempfile.SpooledTemporaryFile(max_size=MEMORY) as file:
        shutil.copyfileobj(body, file)
        try:
            with zipfile.ZipFile(file) as archive:
                return {
                    entry.filename: f"{entry.CRC:08x}-{entry.file_size}"
                    for entry in archive.infolist()
                    if not entry.is_dir()
                }
        except zipfile.BadZipFile:
            raise Ignored("what was pushed is no zip archive", trigger="push") from None
