"""The reconciler's judgement: smoke test, then approval; or rejection, and the previous version again.

A version that fails is rejected first of all, so that no other execution tries it again, and then the stack is put
back.
"""

from __future__ import annotations

from typing import Any

from stacks.deployment import APPROVED, PENDING, Deployment
from stacks.release_marks import MARK_REJECTED, marked, marks
from stacks.release_sample import sample
from stacks.release_steps import (
    AT_REST,
    CARRIES,
    DONE,
    IN_PROGRESS,
    REJECT,
    SAMPLE,
    SETTLE,
    SMOKE_TEST,
    TELL_FAILED,
    TELL_STOPPED,
    TESTED_TAG,
    TOLD_TAG,
    TRIED_HERE,
    UPDATE,
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
from stacks.states import State, expression

LONGEST_REASON = 1000
"""SageMaker takes 1,024 characters and no line breaks in an approval description."""
AUTOMATIC = "$wanted.facts.approval = 'automatic'"
ONCE_MORE = "Describe the version once more"
TESTED = "Remember that it was tried"
VERSION_FAILED = "The version failed"
STILL_THERE = "Does it still carry the failed version?"


def judgement(deployment: Deployment) -> dict[str, State]:
    """From an endpoint that runs the wanted version, or from a reason against it, to the execution's end."""
    approval = _approve(deployment) if deployment.approves else {}
    return {**_smoke_test(deployment), **approval, **_reject_and_put_back(deployment), **_end(deployment)}


def _smoke_test(deployment: Deployment) -> dict[str, State]:
    untried = f"{TRIED_HERE} or $tested != $wanted.arn"
    due = f"{untried} or ($wanted.status = '{PENDING}' and {AUTOMATIC})" if deployment.approves else untried
    tags = [{"Key": TESTED_TAG, "Value": expression("$wanted.arn")}, {"Key": TOLD_TAG, "Value": "none"}]
    return {
        SMOKE_TEST: choice(when(due, SAMPLE, sampling="a smoke test"), otherwise(SETTLE)),
        **sample(deployment, ONCE_MORE if deployment.approves else TESTED),
        # Last, so that an execution that is lost before has its test and its question repeated.
        TESTED: call("sagemaker:addTags", {"ResourceArn": expression("$endpoint.arn"), "Tags": tags}, SETTLE),
    }  # fmt: skip


def _approve(deployment: Deployment) -> dict[str, State]:
    reason = f"Runs in {deployment.environment} and has answered its sample request"
    approval = {"ModelPackageArn": expression("$wanted.arn"), "ModelApprovalStatus": APPROVED,
                "ApprovalDescription": reason}  # fmt: skip
    return {
        # Somebody may have decided while it was rolled out.
        ONCE_MORE: call("sagemaker:describeModelPackage", {"ModelPackageName": expression("$wanted.arn")},
                        "Is an approval due?", assign={"status": expression("$states.result.ModelApprovalStatus")}),
        "Is an approval due?": choice(
            when(f"$status = '{APPROVED}'", TESTED),
            when(f"$status != '{PENDING}'", WAIT),
            when(AUTOMATIC, "Approve the version"),
            otherwise("Ask people for approval")),
        "Approve the version": call("sagemaker:updateModelPackage", approval, TESTED),
        "Ask people for approval": notify(
            f"'{deployment.model.name}: version ' & $wanted.version & ' waits for approval'",
            _question(deployment), TESTED),
    }  # fmt: skip


def _question(deployment: Deployment) -> str:
    model, command = deployment.model.name, "aws sagemaker update-model-package --model-package-arn"
    sent = (f"aws sagemaker-runtime invoke-endpoint --endpoint-name {deployment.endpoint} --content-type text/csv "
            "--body fileb://rows.csv answer.json")  # fmt: skip
    return f"""'Version ' & $wanted.version & ' of {model} runs in {deployment.environment}'
        & ' (endpoint {deployment.endpoint}) and has answered its sample request.'
        & '\\n' & $wanted.facts.metric & ': ' & $wanted.facts.challenger & ', champion: ' & $wanted.facts.champion
        & '\\nMetrics and plots: aws s3 cp --recursive ' & $wanted.facts.evaluation & ' evaluation/'
        & '\\nTry it: {sent}'
        & '\\n        ./pushline invoke {model} --environment {deployment.environment}'
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
            UPDATE, purpose="put back", target=expression("$previous")),
    }  # fmt: skip


def _end(deployment: Deployment) -> dict[str, State]:
    where = f"{deployment.model.name} in {deployment.environment}"
    failed = f"'Version ' & $wanted.version & ' of {where} failed and was rejected. ' & $reason"
    # A test that was made up for, or repeated: the version was live before this execution began.
    still = (f"{TRIED_HERE} ? '' : '\\nIt runs until the newest approved version has replaced it;"
             " if there is none, it stays.'")  # fmt: skip
    stopped = f"'The release of {where} stopped. ' & $problem"
    log = f"""'\\n\\nExecution: ' & $states.context.Execution.Id
        & '\\nEndpoint log: CloudWatch log group /aws/sagemaker/Endpoints/{deployment.endpoint}'"""
    return {
        DONE: succeed(_outcome(deployment)),
        TELL_FAILED: notify(
            f"'{where}: version ' & $wanted.version & ' was rejected'",
            f"{failed} & ({still}) & {log} & '\\nCorrect the model and push again, or approve another version.'",
            marked(deployment, MARK_REJECTED, VERSION_FAILED), even_if_untold=True),
        **marks(deployment, VERSION_FAILED),
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
