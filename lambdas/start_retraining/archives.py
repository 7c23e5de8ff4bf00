"""What a push changed, where the sources are a zip: compared, file by file, with the zip that was last routed."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from botocore.exceptions import ClientError

from lambdas.start_retraining.commits import NEW_FOLDERS
from lambdas.start_retraining.events import Ignored, Place, Push
from lambdas.start_retraining.route import MODELS, Changed

MEMORY = 16 * 1024 * 1024
"""A larger archive is read from disk."""


class Archives:
    """The archives that are pushed; `last` is where it is kept what the last one held."""

    def __init__(self, s3: Any, last: Place) -> None:
        self._s3, self._last = s3, last
        self._found: Mapping[str, str] | None = None

    def placed(self, push: Push) -> Push:
        """The push with the commit before it: going back to an earlier one is a new push."""
        return replace(push, old_commit=str(self._before["commit"]) if self._before else "")

    def changed(self, push: Push) -> Changed:
        """What the push changed; everything where nothing was routed before."""
        files = self._files(push)
        if self._before is None:
            parts = (path.split("/") for path in files)
            return Changed(everything=frozenset(part[1] for part in parts if len(part) > 2 and part[0] == MODELS))
        before: Mapping[str, str] = self._before["files"]
        present = frozenset(path for path, checksum in files.items() if before.get(path) != checksum)
        return Changed(present, frozenset(before.keys() - files.keys()))

    def new_models(self, push: Push, changed: Changed, known: Iterable[str]) -> list[str]:
        """Folders that were pushed, with a model.yaml that no deployed model has."""
        unknown = sorted(changed.folders - set(known))[:NEW_FOLDERS]
        return [name for name in unknown if f"{MODELS}/{name}/model.yaml" in self._files(push)]

    def routed(self, push: Push) -> None:
        """What the next push is compared with. Kept last: a push that could not be routed is compared again."""
        body = json.dumps({"commit": push.commit, "files": self._files(push)}, sort_keys=True).encode()
        self._s3.put_object(Bucket=self._last[0], Key=self._last[1], Body=body)

    def any(self) -> bool:
        """Whether anything was ever pushed."""
        return self._before is not None

    @cached_property
    def _before(self) -> Mapping[str, Any] | None:
        try:
            answer = self._s3.get_object(Bucket=self._last[0], Key=self._last[1])
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return None
            raise
        found: Mapping[str, Any] = json.loads(answer["Body"].read())
        return found

    def _files(self, push: Push) -> Mapping[str, str]:
        """Path to checksum, of the newest archive: an event that comes late must not bring back older files.

        The archive's directory tells size and CRC-32 of each file, so that nothing is unpacked.
        """
        if self._found is None:
            assert push.archive is not None
            self._found = _checksums(self._s3.get_object(Bucket=push.archive[0], Key=push.archive[1])["Body"])
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
