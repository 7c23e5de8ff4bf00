"""The reconciler's rollout: update the serving stack, wait, and read back what the endpoint really runs.

One update at a time serves five purposes: `release` a version, `put back` the previous one, `clear` the stack when
somebody deleted its endpoint, so that CloudFormation makes a new one, and `pause` and `resume` autoscaling, since
SageMaker changes no instance type under it. What changes the endpoint waits for it, see `release_busy_endpoint.py`.
"""

from __future__ import annotations

from stacks.deployment import ON, PAUSED, Deployment
from stacks.release_busy_endpoint import before_update, busy_endpoint, while_changing
from stacks.release_rollback import FIND_OUT, rollback
from stacks.release_sample import SEND, ask
from stacks.release_shadow import GOING, PURPOSE, WITHOUT_SHADOW
from stacks.release_stack_only import KEPT_MODEL, LIVE_MODEL, MODEL_GONE, read_back_stack
from stacks.release_steps import (
    CARRIES,
    CLEAR,
    DESCRIBE_ENDPOINT,
    DESCRIBE_MODEL,
    IN_PROGRESS,
    LOOK,
    OTHERS_DOUBTS,
    POLL_SECONDS,
    PREPARE,
    REJECT,
    SAMPLE,
    SETTLE,
    SMOKE_TEST,
    TELL_FAILED,
    TELL_STOPPED,
    TESTED_TAG,
    TURN_TAG,
    UPDATE,
    WAIT,
    call,
    choice,
    describe_stack,
    look_again,
    otherwise,
    remember,
    tag_of,
    tried_and_failed,
    wait,
    when,
)
from stacks.serving_stack import PACKAGE_VARIABLE
from stacks.states import State, expression

READ_BACK = ("Image", "ModelDataUrl", "ModelPackageArn")
SHORTEST_SAMPLE_SECONDS, MOST_SAMPLES = 5, 700
"""While a new fleet bakes it gets a sample request every few seconds. A history holds 25,000 events, and going back may
take as long again."""
ENTERED = "$states.context.State.EnteredTime"
WAIT_FOR_UPDATE = "Wait for the update"
PAUSE, RESUME = "Pause autoscaling, since the instance type changes", "Resume autoscaling"
BEFORE = "See what is live before"
BAKE = "Send a sample while it bakes"
FINISHED = "What was the update for?"
GONE = "Is the endpoint gone?"
IN_SERVICE = "Is the endpoint in service?"


def rollout(deployment: Deployment) -> dict[str, State]:
    """From a difference between registry and stack to an endpoint that is known to run the wanted version."""
    around = {**_see_before(deployment), **_read_back_endpoint(deployment)} if deployment.has_endpoint \
        else read_back_stack(deployment)  # fmt: skip
    return {**_prepare(deployment), **around, **busy_endpoint(deployment), **_update(deployment),
            **_await(deployment), **rollback(deployment), **_read_back_model(deployment)}  # fmt: skip


def _prepare(deployment: Deployment) -> dict[str, State]:
    shadow = f", {WITHOUT_SHADOW}" if deployment.shadows else ""
    without_model = f"$merge([$stack.parameters, {{'ModelDataUrl': '', 'ModelPackageArn': ''}}{shadow}])"
    paused = f"$merge([$stack.parameters, {{'Autoscaling': '{PAUSED}'}}])"
    other_type = "$stack.parameters.ModelDataUrl != '' and $stack.parameters.InstanceType != $release.InstanceType"
    pausing = f"{other_type} and $release.Autoscaling = '{ON}'" if deployment.scales else "false"
    target = f"{pausing} ? $merge([$release, {{'Autoscaling': '{PAUSED}'}}]) : $release"
    # Without an endpoint nothing answers a sample, and what was live before is the stack's own model.
    start = (SAMPLE, {}) if deployment.has_endpoint else (UPDATE, {"before": {"config": "", "model": LIVE_MODEL}})
    ready = remember(start[0], **start[1], purpose="release", sampling="a rollout", target=expression(target),
                     paused=expression(pausing), previous=expression("$stack.parameters"))  # fmt: skip
    states = {CLEAR: remember(UPDATE, purpose="clear", target=expression(without_model))}
    if not deployment.scales:
        return states | {PREPARE: ready}
    return states | {
        PREPARE: choice(when(f"{other_type} and $stack.parameters.Autoscaling = '{ON}'", PAUSE),
                        otherwise("Prepare the stack's parameters")),
        "Prepare the stack's parameters": ready,
        PAUSE: remember(UPDATE, purpose="pause", target=expression(paused)),
        RESUME: remember(UPDATE, purpose="resume", target=expression("$release")),
    }  # fmt: skip


def _see_before(deployment: Deployment) -> dict[str, State]:
    """Remember the live config and model, which are never collected as leftovers of this release."""
    config = {"before": {"config": expression("$states.result.EndpointConfigName"), "model": ""}}
    model = {"before": {"config": expression("$before.config"),
                        "model": expression("$states.result.ProductionVariants[0].ModelName")}}  # fmt: skip
    return {
        "What is the sample for?": choice(
            when("$sampling != 'a rollout'", SEND), when("$previous.ModelDataUrl = ''", UPDATE), otherwise(BEFORE)),
        BEFORE: call("sagemaker:describeEndpoint", {"EndpointName": deployment.endpoint}, "See which model that is",
                     assign=config, catch=UPDATE),
        "See which model that is": call(
            "sagemaker:describeEndpointConfig", {"EndpointConfigName": expression("$before.config")},
            before_update(deployment), assign=model, catch=before_update(deployment)),
    }  # fmt: skip


def _update(deployment: Deployment) -> dict[str, State]:
    pairs = "$keys($target).{'ParameterKey': $, 'ParameterValue': $lookup($target, $)}"
    token = expression(f"$hash($states.context.Execution.Id & {ENTERED}, 'SHA-256')")
    arguments = {"StackName": deployment.serving_stack, "UsePreviousTemplate": True, "RoleARN": "${UpdateRole}",
                 "ClientRequestToken": token, "Parameters": expression(pairs)}  # fmt: skip
    busy = "$contains($problem, /_IN_PROGRESS|Rate exceeded|Throttl|TokenAlreadyExists/)"
    # Only now: of two executions with the same version, the one whose update is accepted has rolled it out.
    accepted = {"token": token, "doubts": 0,
                "began": expression(f"$purpose in ['release', 'shadow'] ? {ENTERED} : $began"),
                "tried": expression("$purpose = 'release' ? $wanted.arn : $tried")}  # fmt: skip
    return {
        # No retry: CloudFormation has one error for "busy", "nothing to do" and "not allowed"; its text decides.
        UPDATE: call("cloudformation:updateStack", arguments, WAIT_FOR_UPDATE, patient=False,
                     assign=accepted, catch="Why was the update refused?"),
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
    return {
        WAIT_FOR_UPDATE: wait("See how the update stands", _sample_seconds(deployment)),
        "See how the update stands": describe_stack(deployment.serving_stack, "Has the update finished?"),
        "Has the update finished?": choice(
            *_while_it_bakes(deployment),
            when(IN_PROGRESS, WAIT_FOR_UPDATE),
            when("$stack.status = 'UPDATE_COMPLETE' and $stack.parameters = $target", FINISHED, waited=0, met_busy=0),
            otherwise(FIND_OUT)),
        **_bake(deployment),
        FINISHED: choice(
            when("$purpose = 'put back'", TELL_FAILED),
            *([when("$purpose = 'resume'", SETTLE, paused=False)] if deployment.scales else []),
            when(f"$purpose in ['clear', 'pause', '{PURPOSE}', '{GOING}']", LOOK),
            otherwise(DESCRIBE_ENDPOINT)),
    }  # fmt: skip


def _sample_seconds(deployment: Deployment) -> int:
    if not deployment.samples:
        return POLL_SECONDS
    return max(SHORTEST_SAMPLE_SECONDS, deployment.traffic.minutes * 60 // MOST_SAMPLES)


def _while_it_bakes(deployment: Deployment) -> list[State]:
    if not deployment.samples:
        return []
    return [when(f"{IN_PROGRESS} and $purpose = 'release' and $previous.ModelDataUrl != ''", BAKE)]


def _bake(deployment: Deployment) -> dict[str, State]:
    """On a quiet endpoint only these requests ring the alarms; what they are answered is the alarms' business."""
    if not deployment.samples:
        return {}
    return {BAKE: call(*ask(deployment), WAIT_FOR_UPDATE, catch=WAIT_FOR_UPDATE, patient=False)}


def _read_back_endpoint(deployment: Deployment) -> dict[str, State]:
    endpoint = """{
        'arn': $states.result.EndpointArn, 'status': $states.result.EndpointStatus,
        'config': $states.result.EndpointConfigName,
        'failure': $exists($states.result.FailureReason) ? $states.result.FailureReason : '' }"""
    config = """{'since': $states.result.CreationTime,
        'shadow': $exists($states.result.ShadowProductionVariants)}"""
    not_serving = "'The endpoint is ' & $endpoint.status & ' after the update. ' & $endpoint.failure"
    return {
        DESCRIBE_ENDPOINT: call("sagemaker:describeEndpoint", {"EndpointName": deployment.endpoint}, IN_SERVICE,
                                assign={"endpoint": expression(endpoint)}, catch=GONE),
        GONE: choice(
            when("$not($contains($problem, /[Cc]ould not find/))", TELL_STOPPED),
            *tried_and_failed("The update finished without an endpoint."),
            otherwise(CLEAR)),
        IN_SERVICE: choice(
            when("$endpoint.status = 'InService'", "Describe its endpoint config"),
            *while_changing("$endpoint.status"),
            *tried_and_failed(expression(not_serving)),
            when("$endpoint.status = 'Failed'", CLEAR),
            otherwise(TELL_STOPPED, problem=expression("'The endpoint is ' & $endpoint.status & '.'"))),
        "Describe its endpoint config": call(
            "sagemaker:describeEndpointConfig", {"EndpointConfigName": expression("$endpoint.config")},
            DESCRIBE_MODEL, assign={"model": expression("$states.result.ProductionVariants[0].ModelName"),
                                    **({"config": expression(config)} if deployment.shadows else {})}),
    }  # fmt: skip


def _read_back_model(deployment: Deployment) -> dict[str, State]:
    """CloudFormation believes that its parameters are live; the endpoint's own model says what is."""
    container = "$states.result.PrimaryContainer"
    running = f"""{{
        'Image': {container}.Image, 'ModelDataUrl': {container}.ModelDataUrl,
        'ModelPackageArn': {container}.Environment.{PACKAGE_VARIABLE} }}"""
    # Where there is no endpoint, the model carries the tags, and it may be gone.
    kept = {} if deployment.has_endpoint else {"endpoint": KEPT_MODEL}
    same = " and ".join(f"$running.{name} = $release.{name}" for name in READ_BACK)
    differs = "the endpoint runs ' & $running.ModelPackageArn & ', its stack says ' & $release.ModelPackageArn & '.'"
    return {
        DESCRIBE_MODEL: call(
            "sagemaker:describeModel", {"ModelName": expression("$model")}, "Does it run the wanted version?",
            assign={"running": expression(running), **kept},
            catch=TELL_STOPPED if deployment.has_endpoint else MODEL_GONE),
        "Does it run the wanted version?": choice(
            when(same, "Was it tried before?"),
            *tried_and_failed(expression(f"'SageMaker rolled back silently: {differs} & ' ' & $endpoint.failure")),
            # Another execution may be about to reject the version and put the previous one back.
            look_again(times=OTHERS_DOUBTS),
            otherwise(TELL_STOPPED, problem=expression(f"'Changed by hand, or rolled back unseen: {differs}"))),
        "Was it tried before?": call("sagemaker:listTags", {"ResourceArn": expression("$endpoint.arn")}, SMOKE_TEST,
                                     assign={"tested": tag_of(TESTED_TAG), "turn": tag_of(TURN_TAG)}),
    }  # fmt: skip
