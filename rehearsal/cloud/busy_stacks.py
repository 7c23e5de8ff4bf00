"""CloudFormation: a stack that is being changed takes no other change. ministack lets a change set, which is what
`cdk deploy` sends, begin a second update beside the first. One made before an update is obsolete by then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ministack.services.cloudformation import handlers, helpers

from rehearsal.service import Params

Handler = Callable[[Params], Any]
NEW = "REVIEW_IN_PROGRESS"
"""A stack that only a change set has named so far: nothing changes it yet."""


def install() -> None:
    """Refuse in AWS's words, also where ministack refuses in its own."""
    for action in ("UpdateStack", "CreateChangeSet"):
        handlers._ACTION_HANDLERS[action] = _refusing_the_busy(handlers._ACTION_HANDLERS[action])


def _refusing_the_busy(original: Handler) -> Handler:
    def handle(params: Params) -> Any:
        stack = handlers._resolve_stack(str((params.get("StackName") or [""])[0])) or {}
        status = stack.get("StackStatus", "")
        if status.endswith("_IN_PROGRESS") and status != NEW:
            message = f"Stack:{stack['StackId']} is in {status} state and can not be updated."
            return helpers._error("ValidationError", message)
        return original(params)

    return handle
