"""The reconciler of a model without an endpoint: what its stack carries is read back from the stack's own model.

A version goes live as a SageMaker model, for batch. Nothing answers a sample request, so an approval rests on the
evaluation that the version passed before it was registered.
"""

from __future__ import annotations

from stacks.deployment import Deployment
from stacks.release_steps import (
    CLEAR,
    DESCRIBE_ENDPOINT,
    DESCRIBE_MODEL,
    IN_PROGRESS,
    TELL_STOPPED,
    WAIT,
    call,
    choice,
    describe_stack,
    otherwise,
    remember,
    tried_and_failed,
    when,
)
from stacks.states import State, expression

LIVE_MODEL = expression("$stack.model")
"""The name of the SageMaker model that the stack puts out."""
KEPT_MODEL = {"arn": expression("$states.result.ModelArn"), "config": "", "failure": ""}
"""What stands in for the endpoint in a DescribeModel's answer: the tags are on the model."""
MODEL_GONE = "Is the model gone?"


def read_back_stack(deployment: Deployment) -> dict[str, State]:
    """From an updated stack to the model whose version is read back."""
    clear = (*tried_and_failed("The update finished without a model."), otherwise(CLEAR))
    return {
        DESCRIBE_ENDPOINT: describe_stack(deployment.serving_stack, "Does it have a model?"),
        "Does it have a model?": choice(
            when(IN_PROGRESS, WAIT), when("$stack.model != 'none'", "Take the stack's model"), *clear),
        "Take the stack's model": remember(DESCRIBE_MODEL, model=LIVE_MODEL),
        MODEL_GONE: choice(when("$not($contains($problem, /[Cc]ould not find/))", TELL_STOPPED), *clear),
    }  # fmt: skip


def describe_kept_model(then: str) -> State:
    """What carries the tags where there is no endpoint."""
    return call("sagemaker:describeModel", {"ModelName": LIVE_MODEL}, then, assign={"endpoint": KEPT_MODEL})
