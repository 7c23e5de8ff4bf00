"""The reconciler's rollout: update the serving stack, wait, and read back what the endpoint really runs.

One update at a time serves three purposes: `release` a version, `put back` the previous one, and `clear` the stack
when somebody deleted its endpoint, so that CloudFormation makes a new one.
"""

from __future__ import annotations

from stacks.deployment import Deployment
from stacks.release_steps import (
    CARRIES,
    DESCRIBE_ENDPOINT,
    IN_PROGRESS,
    LOOK,
    PREPARE,
    REJECT,
    SMOKE_TEST,
    TELL_FAILED,
    TELL_STOPPED,
    TRIED_HERE,
    UPDATE,
    WAIT,
    call,
    choice,
    describe_stack,
    otherwise,
    remember,
    wait,
    when,
)
from stacks.serving_stack import PACKAGE_VARIABLE
from stacks.states import State, expression

PARAMETERS = ("Image", "ModelDataUrl", "ModelPackageArn", "InstanceType", "MinimumInstances", "MaximumInstances")
READ_BACK = PARAMETERS[:3]
DOUBTS = 4
"""How often to look again at an endpoint that is not what its stack says, before people are told."""
CLEAR = "Clear the stack, since its endpoint is gone"
FINISHED = "What was the update for?"
GONE = "Is the endpoint gone?"
IN_SERVICE = "Is the endpoint in service?"


def rollout(deployment: Deployment) -> dict[str, State]:
    """From a difference between registry and stack to an endpoint that is known to run the wanted version."""
    return {**_prepare(), **_update(deployment), **_await(deployment), **_read_back_endpoint(deployment),
            **_read_back_model()}  # fmt: skip


def _prepare() -> dict[str, State]:
    without_model = "$merge([$stack.parameters, {'ModelDataUrl': '', 'ModelPackageArn': ''}])"
    return {
        PREPARE: remember(UPDATE, purpose="release", target=expression("$release"), tried=expression("$wanted.arn"),
                          previous=expression("$stack.parameters")),
        CLEAR: remember(UPDATE, purpose="clear", target=expression(without_model)),
    }  # fmt: skip


def _update(deployment: Deployment) -> dict[str, State]:
    pairs = "$keys($target).{'ParameterKey': $, 'ParameterValue': $lookup($target, $)}"
    arguments = {"StackName": deployment.serving_stack, "UsePreviousTemplate": True, "RoleARN": "${UpdateRole}",
                 "Parameters": expression(pairs)}  # fmt: skip
    busy = "$contains($problem, /_IN_PROGRESS|Rate exceeded|Throttl/)"
    return {
        # No retry: CloudFormation has one error for "busy", "nothing to do" and "not allowed"; its text decides.
        UPDATE: call("cloudformation:updateStack", arguments, "Wait for the update", patient=False,
                     assign={"began": expression("$states.context.State.EnteredTime")},
                     catch="Why was the update refused?"),
        "Why was the update refused?": choice(
            when("$contains($problem, 'No updates are to be performed')", FINISHED),
            when(f"{busy} and $purpose = 'put back'", "Wait, then see what the stack carries"),
            when(busy, WAIT),
            when("$purpose = 'release' and $contains($problem, /Parameter '?[A-Za-z]+'? (must|failed)/)", REJECT,
                 reason=expression("'The serving stack does not take its parameters: ' & $problem")),
            when("$purpose = 'put back'", TELL_FAILED,
                 reason=expression("$reason & ' It could not be put back: ' & $problem")),
            otherwise(TELL_STOPPED)),
        "Wait, then see what the stack carries": wait(CARRIES),
    }  # fmt: skip


def _await(deployment: Deployment) -> dict[str, State]:
    status = "the serving stack is in ' & $stack.status & '.'"
    # Newest first: the last of what failed since then is the cause, the rest follows from it.
    cause = """(
        $first := [$states.result.StackEvents[$toMillis(Timestamp) >= $toMillis($began)
            and $contains(ResourceStatus, /_FAILED$/)]][-1];
        'The update of the serving stack rolled back (' & $stack.status & '). '
            & $first.LogicalResourceId & ' ' & $first.ResourceStatusReason )"""
    return {
        "Wait for the update": wait("See how the update stands"),
        "See how the update stands": describe_stack(deployment.serving_stack, "Has the update finished?"),
        "Has the update finished?": choice(
            when(IN_PROGRESS, "Wait for the update"),
            when("$stack.status = 'UPDATE_COMPLETE'", FINISHED),
            when("$purpose = 'put back'", TELL_FAILED, reason=expression(f"$reason & ' It was not put back: {status}")),
            when("$purpose = 'clear'", TELL_STOPPED, problem=expression(f"'The endpoint is gone and {status}")),
            otherwise("Find out why it rolled back")),
        FINISHED: choice(
            when("$purpose = 'put back'", TELL_FAILED),
            when("$purpose = 'clear'", LOOK),
            otherwise(DESCRIBE_ENDPOINT)),
        "Find out why it rolled back": call(
            "cloudformation:describeStackEvents", {"StackName": deployment.serving_stack}, REJECT,
            assign={"reason": expression(cause)}, catch=REJECT,
            caught={"reason": expression(f"'The update of the serving stack rolled back: {status}")}),
    }  # fmt: skip


def _read_back_endpoint(deployment: Deployment) -> dict[str, State]:
    endpoint = """{
        'status': $states.result.EndpointStatus, 'config': $states.result.EndpointConfigName,
        'failure': $exists($states.result.FailureReason) ? $states.result.FailureReason : '' }"""
    changing = "$endpoint.status in ['Creating', 'Updating', 'SystemUpdating', 'RollingBack', 'Deleting']"
    not_serving = "'The endpoint is ' & $endpoint.status & ' after the update. ' & $endpoint.failure"
    return {
        DESCRIBE_ENDPOINT: call("sagemaker:describeEndpoint", {"EndpointName": deployment.endpoint}, IN_SERVICE,
                                assign={"endpoint": expression(endpoint)}, catch=GONE),
        GONE: choice(
            when("$not($contains($problem, /[Cc]ould not find/))", TELL_STOPPED),
            when(TRIED_HERE, REJECT, reason="The update finished without an endpoint."),
            otherwise(CLEAR)),
        IN_SERVICE: choice(
            when("$endpoint.status = 'InService'", "Describe its endpoint config"),
            when(changing, WAIT),
            when(TRIED_HERE, REJECT, reason=expression(not_serving)),
            when("$endpoint.status = 'Failed'", CLEAR),
            otherwise(TELL_STOPPED, problem=expression("'The endpoint is ' & $endpoint.status & '.'"))),
    }  # fmt: skip


def _read_back_model() -> dict[str, State]:
    """CloudFormation believes that its parameters are live; the endpoint's own model says what is."""
    container = "$states.result.PrimaryContainer"
    running = f"""{{
        'Image': {container}.Image, 'ModelDataUrl': {container}.ModelDataUrl,
        'ModelPackageArn': {container}.Environment.{PACKAGE_VARIABLE} }}"""
    same = " and ".join(f"$running.{name} = $release.{name}" for name in READ_BACK)
    differs = "the endpoint runs ' & $running.ModelPackageArn & ', its stack says ' & $release.ModelPackageArn & '.'"
    return {
        "Describe its endpoint config": call(
            "sagemaker:describeEndpointConfig", {"EndpointConfigName": expression("$endpoint.config")},
            "Describe its model", assign={"model": expression("$states.result.ProductionVariants[0].ModelName")}),
        "Describe its model": call(
            "sagemaker:describeModel", {"ModelName": expression("$model")}, "Does it run the wanted version?",
            assign={"running": expression(running)}),
        "Does it run the wanted version?": choice(
            when(same, SMOKE_TEST),
            when(TRIED_HERE, REJECT, reason=expression(f"'SageMaker rolled back silently: {differs}")),
            # Another execution may be about to reject the version and put the previous one back.
            when(f"$doubts < {DOUBTS}", WAIT, doubts=expression("$doubts + 1")),
            otherwise(TELL_STOPPED, problem=expression(f"'Changed by hand, or rolled back unseen: {differs}"))),
    }  # fmt: skip
