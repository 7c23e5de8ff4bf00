"""What the function may be told: a push as CodeCommit's event, or a manual request; anything else is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MANUAL_SOURCE = "pushline.manual"
PUSH_SOURCE, PUSH_DETAIL_TYPE = "aws.codecommit", "CodeCommit Repository State Change"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_AS_OF = re.compile(r"\d{4}-\d{2}-\d{2}")


class Ignored(Exception):
    """The event starts nothing; the message says why."""


@dataclass(frozen=True)
class Watched:
    """The one branch of the one repository that this function listens to."""

    repository_arn: str
    branch: str

    @property
    def repository(self) -> str:
        return self.repository_arn.split(":")[5]

    @property
    def account(self) -> str:
        return self.repository_arn.split(":")[4]


@dataclass(frozen=True)
class Push:
    """The branch moved from `old_commit` ("" for a new branch) to `commit`."""

    commit: str
    old_commit: str = ""


@dataclass(frozen=True)
class Manual:
    """Someone asks for `model` to be retrained, optionally on data up to `as_of` (YYYY-MM-DD)."""

    model: str
    reason: str
    as_of: str
    request: str


def parse(event: Mapping[str, Any], watched: Watched, request: str) -> Push | Manual:
    """Read the event, or raise Ignored; `request` identifies a manual request across its retries."""
    if event.get("source") == MANUAL_SOURCE:
        return _manual(_detail(event), request)
    if event.get("source") == PUSH_SOURCE and event.get("detail-type") == PUSH_DETAIL_TYPE:
        return _push(event, _detail(event), watched)
    raise Ignored(f"unknown event: source {event.get('source')!r}, detail-type {event.get('detail-type')!r}")


def _detail(event: Mapping[str, Any]) -> Mapping[str, Any]:
    detail = event.get("detail")
    if not isinstance(detail, Mapping):
        raise Ignored("the event has no detail")
    return detail


def _manual(detail: Mapping[str, Any], request: str) -> Manual:
    model, reason, as_of = (str(detail.get(key) or "") for key in ("model", "reason", "as_of"))
    if not model:
        raise Ignored("a manual request must name the model")
    if as_of and not _AS_OF.fullmatch(as_of):
        raise Ignored(f"as_of is {as_of!r}, not a date YYYY-MM-DD")
    return Manual(model, reason or "manual request", as_of, request)


def _push(event: Mapping[str, Any], detail: Mapping[str, Any], watched: Watched) -> Push:
    _refuse_foreign(event, detail, watched)
    if detail.get("event") == "referenceDeleted":
        raise Ignored("the branch was deleted")
    if (detail.get("referenceType"), detail.get("referenceName")) != ("branch", watched.branch):
        raise Ignored(f"{detail.get('referenceType')} {detail.get('referenceName')} is not branch {watched.branch}")
    commit, old_commit = str(detail.get("commitId") or ""), str(detail.get("oldCommitId") or "")
    if not _COMMIT.fullmatch(commit) or (old_commit and not _COMMIT.fullmatch(old_commit)):
        raise Ignored("the event names no commit")
    return Push(commit, old_commit)


def _refuse_foreign(event: Mapping[str, Any], detail: Mapping[str, Any], watched: Watched) -> None:
    if event.get("account") != watched.account:
        raise Ignored(f"account {event.get('account')} is not {watched.account}")
    named = {str(detail.get("repositoryName")), *(str(arn).split(":")[-1] for arn in event.get("resources") or [])}
    if named != {watched.repository} or watched.repository_arn not in (event.get("resources") or []):
        raise Ignored(f"the event is not about repository {watched.repository}")
