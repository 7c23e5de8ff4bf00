"""What was routed last, kept in S3: whatever event is lost or fails, the next look at the source makes it good."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from botocore.exceptions import ClientError

from lambdas.start_retraining.events import Place


class Routed:
    """The commit that was routed last, what an archive of it held, and the models that are still owed their part."""

    def __init__(self, s3: Any, place: Place) -> None:
        self._s3, self._place = s3, place

    @property
    def commit(self) -> str:
        """Empty if nothing was ever routed."""
        return str(self._kept.get("commit", ""))

    @property
    def files(self) -> Mapping[str, str] | None:
        """Path to checksum; None if no archive was routed."""
        found: Mapping[str, str] | None = self._kept.get("files")
        return found

    @property
    def owed(self) -> tuple[str, ...]:
        """Models that could not be asked or started then; the others need not go through it again."""
        return tuple(self._kept.get("owed", ()))

    def done(self, commit: str) -> bool:
        """Whether nothing is left to route up to the commit."""
        return commit == self.commit and not self.owed

    def keep(self, commit: str, owed: Iterable[str], **more: Any) -> None:
        """Remember it, instead of what was kept before."""
        body = json.dumps({"commit": commit, "owed": sorted(owed), **more}, sort_keys=True).encode()
        self._s3.put_object(Bucket=self._place[0], Key=self._place[1], Body=body)

    @cached_property
    def _kept(self) -> Mapping[str, Any]:
        try:
            answer = self._s3.get_object(Bucket=self._place[0], Key=self._place[1])
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return {}
            raise
        found: Mapping[str, Any] = json.loads(answer["Body"].read())
        return found
