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
    def turn(self) -> int:
        """How many pushes were routed."""
        return int(self._kept.get("turn", 0))

    @property
    def files(self) -> Mapping[str, str] | None:
        """Path to checksum; None if no archive was routed."""
        found: Mapping[str, str] | None = self._kept.get("files")
        return found

    @property
    def owed(self) -> tuple[str, ...]:
        """Models that could not be asked or started then; the others need not go through it again."""
        return tuple(self._kept.get("owed", ()))

    @property
    def gone(self) -> tuple[str, ...]:
        """Deployed models that the commit does not have any more: nothing retrains them."""
        return tuple(self._kept.get("gone", ()))

    def done(self, commit: str) -> bool:
        """Whether nothing is left to route up to the commit."""
        return commit == self.commit and not self.owed

    def keep(self, commit: str, *, owed: Iterable[str], gone: Iterable[str], **more: Any) -> None:
        """Remember it, instead of what was kept before."""
        kept = {"commit": commit, "turn": self.turn + 1, "owed": sorted(owed), "gone": sorted(gone), **more}
        body = json.dumps(kept, sort_keys=True)
        self._s3.put_object(Bucket=self._place[0], Key=self._place[1], Body=body.encode())

    @cached_property
    def _kept(self) -> Mapping[str, Any]:
        try:
            answer = self._s3.get_object(Bucket=self._place[0], Key=self._place[1])
        except ClientError as error:
            if is_absent(self._s3, self._place, error):
                return {}
            raise
        found: Mapping[str, Any] = json.loads(answer["Body"].read())
        return found


def is_absent(s3: Any, place: Place, error: ClientError) -> bool:
    """Whether an object could not be had because there is none.

    To a caller who may list the bucket only below a prefix S3 may say "access denied" of an object that is not there:
    its documentation does not tell which prefix a question about one object counts as.
    """
    code = error.response["Error"]["Code"]
    if code in ("AccessDenied", "403"):
        listed = s3.list_objects_v2(Bucket=place[0], Prefix=place[1], MaxKeys=1).get("Contents", ())
        return not any(object["Key"] == place[1] for object in listed)
    return code in ("NoSuchKey", "404")
