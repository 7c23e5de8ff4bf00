"""The reconciler's judgement: smoke test, then approval; or rejection, and the previous version again.

A version that fails is rejected first of all, so that no other execution tries it again, and then the stack is put
back.
"""

from __future__ import annotations

from typing import Any

from stacks.deployment import APPROVED, PENDING, Deployment
from stacks.release_busy_endpoint import before_update
from stacks.release_marks import MARK_REJECTED, marked, marks
from stacks.release_sample import ANSWER_ATTEMPTS, ANSWER_SECONDS, sample
from stacks.release_shadow import ACCEPTED, COMPARED, DUE, REPORTED, SHADOW, STAGING, life_cycle
from stacks.release_steps import (
    AT_REST,
    CARRIES,
    DONE,
    IN_PROGRESS,
    MY_TURN,
    PATIENCE,
    POLL_SECONDS,
    REJECT,
    SAMPLE,
    SETTLE,
    SMOKE_TEST,
    STAGE,
    TAKE_TURN,
    TELL_FAILED,
    TELL_STOPPED,
    TESTED_TAG,
    TOLD_TAG,
    TRIED_HERE,
    WAIT,
    call,
    choice,
    describe_stack,
    fail,
    notify,
    otherwise,
    remember,
    succeed,
    when,
)
from stacks.states import State, expression, jsonata_list

LONGEST_REASON = 1000
"""SageMaker takes 1,024 characters and no line breaks in an approval description."""
AUTOMATIC = "$wanted.facts.approval = 'automatic'"
SHADOWED = f"($stage = '{COMPARED}' ? '. As the shadow of production: ' & $said : '')"
HAND_ON = "Hand the version on to be a shadow"
ONCE_MORE = "Describe the version once more"
TESTED = "Remember that it was tried"
VERSION_FAILED = "The version failed"
STILL_THERE = "Does it still carry the failed version?"


def judgement(deployment: Deployment) -> dict[str, State]:
    """From an endpoint that runs the wanted version, or from a reason against it, to the execution's end."""
    approval = _approve(deployment) if deployment.approves else {}
    return {**_smoke_test(deployment), **approval, **_reject_and_put_back(deployment), **_end(deployment)}


def _smoke_test(deployment: Deployment) -> dict[str, State]:
    untried = "$tested != $wanted.arn"
    ready = f"({AUTOMATIC} or $wanted.stage = '{COMPARED}')" if deployment.awaits_shadow else AUTOMATIC
    due = f"{untried} or ($wanted.status = '{PENDING}' and {ready})" if deployment.approves else untried
    tags = [{"Key": TESTED_TAG, "Value": expression("$wanted.arn")}, {"Key": TOLD_TAG, "Value": "none"}]
    then = ONCE_MORE if deployment.approves else TESTED
    try_it = (SAMPLE, {"sampling": "a smoke test"}) if deployment.has_endpoint else (then, {})
    return {
        SMOKE_TEST: choice(
            when(TRIED_HERE, try_it[0], **try_it[1]),
            # Whoever rolled it out tries it; the others make up for it if that one was lost.
            when(f"{untried} and $untried < {_patience(deployment)}", WAIT, untried=expression("$untried + 1")),
            when(f"({due}) and {MY_TURN}", try_it[0], **try_it[1]),
            when(f"({due}) and $not($asked_for_turn)", TAKE_TURN),
            otherwise(SETTLE)),
        **(sample(deployment, then) if deployment.has_endpoint else {}),
        # Last, so that an execution that is lost before has its test and its question repeated.
        TESTED: call("sagemaker:addTags", {"ResourceArn": expression("$endpoint.arn"), "Tags": tags}, SETTLE),
    }  # fmt: skip


def _patience(deployment: Deployment) -> int:
    """The answer of an asynchronous endpoint may take its time."""
    return PATIENCE + (ANSWER_SECONDS * ANSWER_ATTEMPTS // POLL_SECONDS if deployment.kind == "async" else 0)


def _approve(deployment: Deployment) -> dict[str, State]:
    reason = f"Runs in {deployment.environment} and has answered its sample request" if deployment.has_endpoint \
        else "Passed its evaluation; there is no endpoint to try it on"  # fmt: skip
    if deployment.awaits_shadow:
        reason = expression(f"$substring('{reason}' & {SHADOWED}, 0, {LONGEST_REASON})")
    approval = {"ModelPackageArn": expression("$wanted.arn"), "ModelApprovalStatus": APPROVED,
                "ApprovalDescription": reason}  # fmt: skip
    asked = "Remember that people were asked" if deployment.awaits_shadow else TESTED
    return {
        # Somebody may have decided while it was rolled out.
        ONCE_MORE: call("sagemaker:describeModelPackage", {"ModelPackageName": expression("$wanted.arn")},
                        "Is an approval due?", assign=_decided(deployment)),
        "Is an approval due?": choice(
            when(f"$status = '{APPROVED}'", TESTED),
            when(f"$status != '{PENDING}'", WAIT),
            *_before_approval(deployment),
            when(AUTOMATIC, "Approve the version"),
            otherwise("Ask people for approval")),
        "Approve the version": call("sagemaker:updateModelPackage", approval, TESTED),
        "Ask people for approval": notify(
            f"'{deployment.model.name}: version ' & $wanted.version & ' waits for approval'",
            _question(deployment), asked),
        **(_hand_on() if deployment.awaits_shadow else {}),
    }  # fmt: skip


def _decided(deployment: Deployment) -> dict[str, str]:
    status = {"status": expression("$states.result.ModelApprovalStatus")}
    said = "$exists($states.result.ModelLifeCycle.StageDescription) ? $states.result.ModelLifeCycle.StageDescription"
    stage = {"stage": expression(STAGE), "said": expression(f"{said} : ''")}
    return status | (stage if deployment.awaits_shadow else {})


def _before_approval(deployment: Deployment) -> list[State]:
    """Without an approved version there is nothing that a shadow could stand beside."""
    if not deployment.awaits_shadow:
        return []
    return [when(f"$champions and $stage = '{ACCEPTED}'", TESTED),
            when(f"$champions and $not($stage in {jsonata_list((COMPARED, REPORTED))})", HAND_ON)]  # fmt: skip


def _hand_on() -> dict[str, State]:
    """A version's life cycle is an event of the registry, which starts the reconcilers."""

    def stage(stage: str, status: str, said: str) -> State:
        update = {"ModelPackageArn": expression("$wanted.arn"), "ModelLifeCycle": life_cycle(stage, status, said)}
        return call("sagemaker:updateModelPackage", update, TESTED)

    return {HAND_ON: stage(STAGING, ACCEPTED, "'It has answered its sample request and waits to be a shadow.'"),
            "Remember that people were asked": stage(SHADOW, REPORTED, "$said")}  # fmt: skip


def _question(deployment: Deployment) -> str:
    model, command = deployment.model.name, "aws sagemaker update-model-package --model-package-arn"
    sent = (f"aws sagemaker-runtime invoke-endpoint --endpoint-name {deployment.endpoint} --content-type text/csv "
            "--body fileb://rows.csv answer.json")  # fmt: skip
    shadowed = f"& {SHADOWED}" if deployment.awaits_shadow else ""
    state = f"""runs in {deployment.environment}'
        & ' (endpoint {deployment.endpoint}) and has answered its sample request.'"""
    tried = f"""
        & '\\nTry it: {sent}'
        & '\\n        ./pushline invoke {model} --environment {deployment.environment}'"""
    if not deployment.has_endpoint:
        state, tried = "passed its evaluation; there is no endpoint to try it on.'", ""
    return f"""'Version ' & $wanted.version & ' of {model} {state}
        & '\\n' & $wanted.facts.metric & ': ' & $wanted.facts.challenger & ', champion: ' & $wanted.facts.champion
        {shadowed}
        & '\\nMetrics and plots: aws s3 cp --recursive ' & $wanted.facts.evaluation & ' evaluation/'{tried}
        & '\\nRetrained by ' & $wanted.facts.trigger & ': ' & $wanted.facts.reason
        & '\\nCommit: ' & $wanted.facts.commit & '\\nLineage: ' & $wanted.facts.lineage
        & '\\n\\nApprove: ./pushline approve {model} ' & $wanted.version
        & '\\n     AWS: {command} ' & $wanted.arn & ' --model-approval-status Approved'
        & '\\nReject:  ./pushline reject {model} ' & $wanted.version
        & '\\n     AWS: {command} ' & $wanted.arn & ' --model-approval-status Rejected'"""


def _reject_and_put_back(deployment: Deployment) -> dict[str, State]:
    cause = "$states.errorOutput.Cause"
    description = f"$substring($replace($reason, /\\s+/, ' '), 0, {LONGEST_REASON})"
    rejection = {"ModelPackageArn": expression("$wanted.arn"), "ModelApprovalStatus": "Rejected",
                 "ApprovalDescription": expression(description)}  # fmt: skip
    return {
        REJECT: call("sagemaker:updateModelPackage", rejection, CARRIES, catch=CARRIES,
                     caught={"reason": expression(f"$reason & ' It could not be rejected: ' & {cause}")}),
        CARRIES: describe_stack(deployment.serving_stack, STILL_THERE, catch=TELL_FAILED, caught={
            "reason": expression(f"$reason & ' The serving stack could not be read: ' & {cause}")}),
        STILL_THERE: choice(
            when(IN_PROGRESS, "Wait, then see what the stack carries"),
            when(f"{TRIED_HERE} and $stack.parameters.ModelPackageArn = $wanted.arn and {AT_REST}",
                 "Prepare to put the previous version back"),
            otherwise(TELL_FAILED)),
        # Before the first version these were the empty parameters, and the endpoint goes.
        "Prepare to put the previous version back": remember(
            before_update(deployment), purpose="put back", target=expression("$previous")),
    }  # fmt: skip


def _end(deployment: Deployment) -> dict[str, State]:
    where = f"{deployment.model.name} in {deployment.environment}"
    failed = f"'Version ' & $wanted.version & ' of {where} failed and was rejected. ' & $reason"
    # A test that was made up for, or repeated: the version was live before this execution began.
    still = (f"{TRIED_HERE} ? '' : '\\nIt runs until the newest approved version has replaced it;"
             " if there is none, it stays.'")  # fmt: skip
    stopped = f"'The release of {where} stopped. ' & $problem"
    log = "'\\n\\nExecution: ' & $states.context.Execution.Id"
    if deployment.has_endpoint:
        log += f" & '\\nEndpoint log: CloudWatch log group /aws/sagemaker/Endpoints/{deployment.endpoint}'"
    return {
        DONE: succeed(_outcome(deployment)),
        TELL_FAILED: notify(
            f"'{where}: version ' & $wanted.version & ' was rejected'",
            f"{failed} & ({still}) & {log} & '\\nCorrect the model and push again, or approve another version.'",
            marked(deployment, MARK_REJECTED, VERSION_FAILED), even_if_untold=True),
        **marks(deployment, DUE if deployment.shadows else DONE, VERSION_FAILED),
        VERSION_FAILED: fail("VersionFailed", failed),
        TELL_STOPPED: notify(
            f"'{where}: the release stopped'",
            f"{stopped} & {log} & '\\nNothing was rejected; it is tried again within the hour.'",
            "The release stopped", even_if_untold=True),
        "The release stopped": fail("ReleaseStopped", stopped),
    }  # fmt: skip


def _outcome(deployment: Deployment) -> dict[str, Any]:
    return {"model": deployment.model.name, "environment": deployment.environment,
            "version": expression("$wanted.version"), "released": expression(TRIED_HERE),
            "reason": expression(f"{TRIED_HERE} ? 'rolled out' : 'was live already'")}  # fmt: skip
