"""What was pushed since the commit that was routed last, as CodeCommit tells it.

An event only says "look": the branch's head is compared, as the pipelines take it, whichever commit the event names.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from botocore.exceptions import ClientError

from lambdas.start_retraining.events import Ignored, Push, Watched
from lambdas.start_retraining.route import MODELS, Changed
from lambdas.start_retraining.routed import Routed

_GONE = {"CommitIdDoesNotExistException", "CommitDoesNotExistException", "InvalidCommitIdException"}
_NO_FOLDER = {"FolderDoesNotExistException", "CommitDoesNotExistException"}


class Commits:
    """The repository that pushes go to."""

    def __init__(self, codecommit: Any, watched: Watched, last: Routed) -> None:
        self._codecommit, self._watched, self._last = codecommit, watched, last

    def unrouted(self, now: dt.datetime) -> Push | None:
        """The branch's head, if it was not routed: its event was lost, or is still on its way."""
        return Push(self._head, "", now) if self._head and not self._last.done(self._head) else None

    def placed(self, push: Push, now: dt.datetime) -> Push:
        """The push up to the branch's head, from the commit that was routed last; Ignored if there is nothing new."""
        # A forged event may name a commit that was never pushed.
        if push.commit != self._head and not self._exists(push.commit):
            raise Ignored(f"commit {push.commit} is not in repository {self._watched.repository}", trigger="push")
        if not self._head:
            raise Ignored(f"there is no branch {self._watched.branch} any more", trigger="push")
        if self._last.done(self._head):
            raise Ignored(f"push {push.commit[:8]} is routed already", trigger="push")
        # After a forced push either may be gone.
        known = (commit for commit in (self._last.commit, push.old_commit) if commit and self._exists(commit))
        placed = replace(push, old_commit=next(known, ""), turn=self._last.turn)
        # An event of an earlier commit, late or told again, does not say when the head was pushed.
        return placed if push.commit == self._head else replace(placed, commit=self._head, time=now)

    def routed(self, push: Push, owed: Iterable[str], gone: Iterable[str]) -> None:
        """What the next push is compared with. Kept last: a push that was not routed to the end is compared again."""
        self._last.keep(push.commit, owed=owed, gone=gone)

    def changed(self, push: Push) -> Changed:
        """What the push changed; everything where no old commit is left to compare with."""
        if not push.old_commit:
            folders = self._folder(push.commit, MODELS).get("subFolders", ())
            return Changed(everything=frozenset(folder["relativePath"] for folder in folders))
        return self._differences(push)

    def is_model(self, push: Push, name: str) -> bool:
        """Whether the folder of models that was pushed has a model.yaml."""
        files = self._folder(push.commit, f"{MODELS}/{name}").get("files", ())
        return any(file["relativePath"] == "model.yaml" for file in files)

    def any(self) -> bool:
        """Whether anything was ever pushed to the branch."""
        return bool(self._head)

    @cached_property
    def _head(self) -> str:
        """Empty if there is no branch."""
        try:
            found = self._codecommit.get_branch(repositoryName=self._watched.repository,
                                                branchName=self._watched.branch)  # fmt: skip
        except ClientError as error:
            if _code(error) == "BranchDoesNotExistException":
                return ""
            raise
        return str(found["branch"]["commitId"])

    def _exists(self, commit: str) -> bool:
        try:
            self._codecommit.get_commit(repositoryName=self._watched.repository, commitId=commit)
        except ClientError as error:
            if _code(error) in _GONE:
                return False
            raise
        return True

    def _differences(self, push: Push) -> Changed:
        pages = self._codecommit.get_paginator("get_differences").paginate(
            repositoryName=self._watched.repository,
            beforeCommitSpecifier=push.old_commit,
            afterCommitSpecifier=push.commit,
        )
        entries = [entry for page in pages for entry in page["differences"]]
        present, before = _paths(entries, "afterBlob"), _paths(entries, "beforeBlob")
        return Changed(present, before - present)

    def _folder(self, commit: str, path: str) -> dict[str, Any]:
        """What is in a folder, without the contents: a file of any size is only a name."""
        try:
            return dict(
                self._codecommit.get_folder(
                    repositoryName=self._watched.repository, commitSpecifier=commit, folderPath=path
                )
            )
        except ClientError as error:
            if _code(error) in _NO_FOLDER:
                return {}
            raise


def _paths(entries: Iterable[Mapping[str, Any]], side: str) -> frozenset[str]:
    return frozenset(entry[side]["path"] for entry in entries if entry.get(side))


def _code(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])
