"""The job object that Glue's scripts open and commit; there are no bookmarks to keep here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from awsglue.context import GlueContext


class Job:
    """`init` at the start of a script, `commit` at its end."""

    def __init__(self, glue_context: GlueContext) -> None:
        self._context = glue_context
        self._name: str | None = None

    def init(self, job_name: str, args: dict[str, Any] | None = None) -> None:
        bookmark = (args or {}).get("job_bookmark_option", "job-bookmark-disable")
        if bookmark != "job-bookmark-disable":
            raise NotImplementedError(f"job bookmarks ({bookmark}) are not rehearsed; use job-bookmark-disable")
        self._name = job_name

    def isInitialized(self) -> bool:
        return self._name is not None

    def commit(self) -> None:
        if self._name is None:
            raise RuntimeError("Job.commit() without Job.init(name, args)")
