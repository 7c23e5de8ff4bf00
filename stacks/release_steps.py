"""How the reconciler's states are written, and the names of those that its parts share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stacks.states import State, expression, task

POLL_SECONDS = 15
DOUBTS = 4
"""How often to look again at what should not be so, before people are told."""
OWN_DOUBTS = 2
"""Likewise, before an execution rejects what it has brought there itself: much sooner than the others give up."""
OTHERS_DOUBTS = 12
"""Likewise, at what another execution may be about to reject."""
PATIENCE = 4
"""How often to look again at what another execution is about to do, before this one does it in its place."""
LOOK = "Look at the registry"
WAIT = "Wait, then look at the registry anew"
DESCRIBE_ENDPOINT = "Describe what is live"
DESCRIBE_MODEL = "Describe its model"
PREPARE = "Prepare the release"
CLEAR = "Clear the stack, since what it made is gone"
UPDATE = "Update the serving stack"
SMOKE_TEST = "Is a smoke test due?"
TAKE_TURN = "Take the turn"
SAMPLE = "Is there a sample request?"
SETTLE = "Is there anything left to do?"
DONE = "The endpoint runs the wanted version"
REJECT = "Reject the version"
CARRIES = "See what the stack carries now"
TELL_FAILED = "Tell that the version failed"
TELL_STOPPED = "Tell that the release stopped"

TESTED_TAG = "pushline:smoke-tested"
"""On the endpoint, or on the model where there is none: the version whose smoke test passed, so that a test that was
interrupted is repeated."""
TOLD_TAG = "pushline:told-without-approval"
"""Likewise: the live version that people know to be no longer approved, so that they hear it once."""

TURN_TAG = "pushline:turn"
"""Likewise: the execution that is to try or to say next what should happen once. All that want to write themselves down
and look again after a while, so that the last one has the turn."""
MY_TURN = "$turn = $states.context.Execution.Id"

STAGE = "$exists($states.result.ModelLifeCycle) ? $states.result.ModelLifeCycle.StageStatus : ''"
"""How far a described version has come, see `release_shadow.py`."""
TRIED_HERE = "$tried = $wanted.arn"
"""This execution has brought the stack to the wanted version, so it knows what was there before."""
AT_REST = "$stack.status in ['CREATE_COMPLETE', 'UPDATE_COMPLETE', 'UPDATE_ROLLBACK_COMPLETE', 'IMPORT_COMPLETE']"
IN_PROGRESS = "$contains($stack.status, /_IN_PROGRESS$/)"
SDK_NAMES = {"sagemaker": "SageMaker", "sagemakerruntime": "SageMakerRuntime", "cloudformation": "CloudFormation",
             "s3": "S3", "cloudwatch": "CloudWatch"}  # fmt: skip
UNNAMED_FAULT_ATTEMPTS = 3
LONGEST_SUBJECT = 99
"""SNS takes fewer than 100 characters."""


def call(
    api: str, arguments: Any, then: str, *, assign: Mapping[str, Any] | None = None, catch: str = TELL_STOPPED,
    caught: Mapping[str, Any] | None = None, patient: bool = True,
) -> State:  # fmt: skip
    """Call `service:operation` through its SDK; what waiting does not heal goes to `catch`, with `problem` set."""
    state = task(f"aws-sdk:{api}", {}, then, Catch=_caught_by(catch, **(caught or {})))
    state["Arguments"] = arguments
    state["Retry"] = [*state["Retry"], _unnamed_faults(SDK_NAMES[api.split(":")[0]])] if patient else []
    return state | ({"Assign": dict(assign)} if assign else {})


def run_job(api: str, arguments: Any, then: str, *, catch: str) -> State:
    """Start a job and wait until it has ended; if it fails, go to `catch` with `problem` set."""
    return task(f"{api}.sync", arguments, then, Catch=_caught_by(catch))


def _caught_by(state: str, **variables: Any) -> list[dict[str, Any]]:
    """Go to `state` after any error, which is then in `problem`."""
    problem = expression("$states.errorOutput.Error & ': ' & $states.errorOutput.Cause")
    # An answer that is too large (256 KiB) is not one of ALL.
    return [{"ErrorEquals": [error], "Assign": {"problem": problem, **variables}, "Next": state}
            for error in ("States.DataLimitExceeded", "States.ALL")]  # fmt: skip


def _unnamed_faults(service: str) -> dict[str, Any]:
    # Throttling, when the service's model has no name for it; but a missing resource and a denied call, too.
    return {"ErrorEquals": [f"{service}.{service}Exception"], "IntervalSeconds": 2, "BackoffRate": 2,
            "MaxAttempts": UNNAMED_FAULT_ATTEMPTS, "JitterStrategy": "FULL"}  # fmt: skip


def notify(subject: str, message: str, then: str, *, even_if_untold: bool = False) -> State:
    """Tell people; `subject` and `message` are JSONata. What fails has failed, even if nobody could be told."""
    arguments = {"TopicArn": "${Topic}", "Subject": expression(f"$substring({subject}, 0, {LONGEST_SUBJECT})"),
                 "Message": expression(message)}  # fmt: skip
    return task("sns:publish", arguments, then, Catch=_caught_by(then if even_if_untold else TELL_STOPPED))


def remember(then: str, **variables: Any) -> State:
    """Set variables and go on."""
    return {"Type": "Pass", "Assign": variables, "Next": then}


def wait(then: str, seconds: int = POLL_SECONDS) -> State:
    """Let some time pass."""
    return {"Type": "Wait", "Seconds": seconds, "Next": then}


def take_turn() -> State:
    """Ask for the turn, and look at everything anew."""
    tags = [{"Key": TURN_TAG, "Value": expression("$states.context.Execution.Id")}]
    return call("sagemaker:addTags", {"ResourceArn": expression("$endpoint.arn"), "Tags": tags}, WAIT,
                assign={"asked_for_turn": True})  # fmt: skip


def tag_of(name: str) -> str:
    """The value of a tag in the answer of ListTags; empty if there is none."""
    return expression(f"$append($states.result.Tags[Key = '{name}'].Value, [''])[0]")


def address(uri: str) -> State:
    """Bucket and key of an `s3://` address, itself JSONata."""
    path = f"$substringAfter({uri}, 's3://')"
    return {"Bucket": expression(f"$substringBefore({path}, '/')"), "Key": expression(f"$substringAfter({path}, '/')")}


def is_address(uri: str) -> str:
    """Whether a text is an `s3://` address."""
    return f"$contains({uri}, /^s3:..[^\\/]+\\/./)"


def choice(*rules: State) -> State:
    """The first rule that holds; the last one is `otherwise`."""
    *conditional, default = rules
    state: State = {"Type": "Choice", "Choices": conditional, "Default": default["Next"]}
    return state | ({"Assign": default["Assign"]} if "Assign" in default else {})


def when(condition: str, then: str, **variables: Any) -> State:
    """A rule of a choice."""
    return {"Condition": expression(condition), **otherwise(then, **variables)}


def otherwise(then: str, **variables: Any) -> State:
    """What a choice does when none of its rules holds."""
    return {"Next": then} | ({"Assign": variables} if variables else {})


def look_again(condition: str = "true", times: int = DOUBTS) -> State:
    """A rule of a choice: what should not be so may be half of what another execution changes, so look once more."""
    return when(f"{condition} and $doubts < {times}", WAIT, doubts=expression("$doubts + 1"))


def tried_and_failed(reason: str) -> list[State]:
    """Rules of a choice: reject what this execution has brought there and what is not as it should be."""
    return [look_again(TRIED_HERE, OWN_DOUBTS), when(TRIED_HERE, REJECT, reason=reason)]


def succeed(output: State) -> State:
    """The end of an execution that has nothing left to do."""
    return {"Type": "Succeed", "Output": output}


def fail(error: str, cause: str) -> State:
    """The end of an execution that did not get there, with the reason that status shows (JSONata)."""
    return {"Type": "Fail", "Error": error, "Cause": expression(cause)}


def describe_stack(
    name: str, then: str, *, catch: str = TELL_STOPPED, caught: Mapping[str, Any] | None = None
) -> State:  # fmt: skip
    """Read the stack's status and live parameters; and its model, which it puts out where there is no endpoint."""
    stack = """{
        'status': $states.result.Stacks[0].StackStatus,
        'began': $append($states.result.Stacks[0].LastUpdatedTime, ['1970-01-01T00:00:00.000Z'])[0],
        'model': $append($states.result.Stacks[0].Outputs[OutputKey = 'LiveModel'].OutputValue, ['none'])[0],
        'parameters': $merge([{}, $states.result.Stacks[0].Parameters.{ParameterKey: ParameterValue}]) }"""
    return call("cloudformation:describeStacks", {"StackName": name}, then, assign={"stack": expression(stack)},
                catch=catch, caught=caught)  # fmt: skip
