"""The reconciler's verdict on an update of the serving stack that is not there any more: by its events, whose fault
was it?

Only what was to be released, or to be a shadow, is rejected (`release_judgement.py`); an endpoint that was changing by
itself is waited for (`release_busy_endpoint.py`), and then the update is begun again. Between two looks another
execution's update may have followed: events are told apart by the token of the update that caused them.
"""

from __future__ import annotations

from stacks.deployment import Deployment
from stacks.release_busy_endpoint import BUSY, WAIT_FOR_ENDPOINT
from stacks.release_shadow import PURPOSE
from stacks.release_steps import (
    AT_REST,
    DOUBTS,
    REJECT,
    TELL_FAILED,
    TELL_STOPPED,
    WAIT,
    call,
    choice,
    otherwise,
    when,
)
from stacks.states import State, expression

FIND_OUT = "Find out what became of the update"
FAULT = "Whose fault is it that it rolled back?"
NOT_FAILED = "$why = ''"
"""The update has done what it should, or so much has happened since that it can't be seen any more."""


def rollback(deployment: Deployment) -> dict[str, State]:
    """From a stack that is not on its target to who is told, rejected or waited for."""
    status = "the serving stack is in ' & $stack.status & '.'"
    # Newest first: the last of what failed is the cause, the rest follows from it.
    cause = """(
        $own := $states.result.StackEvents[ClientRequestToken = $token];
        $first := $own[$contains(ResourceStatus, /_FAILED$/)][-1];
        $exists($first) ? 'The update of the serving stack rolled back (' & $own[0].ResourceStatus & '). '
            & $first.LogicalResourceId & ' ' & $first.ResourceStatusReason : '' )"""
    unseen = f"$stack.status = 'UPDATE_COMPLETE' ? '' : 'The update of the serving stack rolled back: {status}"
    return {
        FIND_OUT: call(
            "cloudformation:describeStackEvents", {"StackName": deployment.serving_stack}, FAULT,
            assign={"why": expression(cause)}, catch=FAULT, caught={"why": expression(unseen)}),
        FAULT: choice(
            when(f"{NOT_FAILED} and $purpose = 'put back'", TELL_FAILED),
            when(NOT_FAILED, WAIT),
            *_met_busy_endpoint(deployment),
            when("$purpose = 'put back'", TELL_FAILED, reason=expression(f"$reason & ' It was not put back: {status}")),
            when(f"$contains($why, {BUSY})", TELL_STOPPED, problem=expression("$why")),
            *_failed_shadow(deployment),
            when("$purpose != 'release'", TELL_STOPPED, problem=expression(f"'To ' & $purpose & ': {status}")),
            otherwise(REJECT, reason=expression("$why"))),
    }  # fmt: skip


def _met_busy_endpoint(deployment: Deployment) -> list[State]:
    """It began to change after it was seen at rest: the version was not tried, and another update may be luckier."""
    again = when(f"$contains($why, {BUSY}) and {AT_REST} and $met_busy < {DOUBTS}", WAIT_FOR_ENDPOINT,
                 met_busy=expression("$met_busy + 1"),
                 tried=expression("$purpose = 'release' ? '' : $tried"))  # fmt: skip
    return [again] if deployment.has_endpoint else []


def _failed_shadow(deployment: Deployment) -> list[State]:
    """A version that can't be brought up beside what is live is to blame itself; what is live stays."""
    rejected = when(f"$purpose = '{PURPOSE}'", REJECT, wanted=expression("$shadow"), reason=expression("$why"))
    return [rejected] if deployment.shadows else []
