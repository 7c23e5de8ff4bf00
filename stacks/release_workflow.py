"""The reconciler: makes one environment's endpoint equal to what the model registry says (hop 6).

Level-triggered: whatever started it, it reads the registry and the live stack and acts on the difference, so that
lost, duplicate, reordered and forged events change nothing. It never reads its input.

registry -> wanted version -> serving stack -> update and read back (`release_rollout.py`)
-> smoke test -> approval, or rejection and the previous version again (`release_judgement.py`)

A pure function from settings to definition; `${Names}` are filled in by CloudFormation (see SUBSTITUTIONS).
Where the push goes next: it is live. Staging's approval is an event that starts production's reconciler.
"""

from __future__ import annotations

from typing import Any

from stacks.deployment import Deployment
from stacks.release_judgement import judgement
from stacks.release_rollout import PARAMETERS, rollout
from stacks.release_steps import (
    AT_REST,
    DESCRIBE_ENDPOINT,
    IN_PROGRESS,
    LOOK,
    PREPARE,
    REJECT,
    TELL_STOPPED,
    WAIT,
    call,
    choice,
    describe_stack,
    otherwise,
    remember,
    succeed,
    wait,
    when,
)
from stacks.states import State, expression, jsonata_list

SUBSTITUTIONS = ("UpdateRole", "Topic")
"""What the definition leaves to CloudFormation: the ARNs of the role of stack updates and of the topic."""
LONGEST_SECONDS = 4 * 3600
"""A rollout and putting it back, each at most an hour, behind another execution that does the same."""
PAGE = 100
START = "Start with nothing tried"


def release_workflow(deployment: Deployment) -> dict[str, Any]:
    """The definition of one environment's reconciler."""
    states = {**_read_registry(deployment), **_describe_wanted(deployment), **_compare_with_stack(deployment),
              **rollout(deployment), **judgement(deployment)}  # fmt: skip
    return {"Comment": f"Make the endpoint {deployment.endpoint} equal to what the model registry says",
            "QueryLanguage": "JSONata", "StartAt": START, "TimeoutSeconds": LONGEST_SECONDS,
            "States": states}  # fmt: skip


def _read_registry(deployment: Deployment) -> dict[str, State]:
    statuses = deployment.wanted_statuses
    states = {
        START: remember(LOOK, tried="", previous={}, doubts=0, problem="", reason=""),
        LOOK: remember(_listing(statuses[0]), newest={"version": 0, "arn": ""}, page=""),
    }
    for status, then in zip(statuses, [*map(_listing, statuses[1:]), "Is a version wanted?"], strict=True):
        states |= _list_versions(deployment, status, then)
    return states


def _listing(status: str) -> str:
    return f"List the newest {status} versions"


def _list_versions(deployment: Deployment, status: str, then: str) -> dict[str, State]:
    """Newest first, so that the first page with a usable version holds the newest; pages before it may be empty."""
    query = (f"'ModelPackageGroupName': '{deployment.model.slug}', 'ModelPackageType': 'Versioned', "
             f"'ModelApprovalStatus': '{status}', 'SortBy': 'CreationTime', 'SortOrder': 'Descending', "
             f"'MaxResults': {PAGE}")  # fmt: skip
    usable = "[$states.result.ModelPackageSummaryList[ModelPackageStatus = 'Completed']]"
    newest = f"""(
        $usable := {usable}.{{'version': ModelPackageVersion, 'arn': ModelPackageArn}};
        $sort($append([$newest], $usable), function($a, $b) {{ $a.version < $b.version }})[0] )"""
    token = f"$exists($states.result.NextToken) and $count({usable}) = 0 ? $states.result.NextToken : ''"
    paged = f"Is there another page of {status} versions?"
    return {
        _listing(status): call(
            "sagemaker:listModelPackages",
            expression(f"$merge([{{{query}}}, $page = '' ? {{}} : {{'NextToken': $page}}])"), paged,
            assign={"newest": expression(newest), "page": expression(token)}),
        paged: choice(when("$page != ''", _listing(status)), otherwise(then)),
    }  # fmt: skip


def _describe_wanted(deployment: Deployment) -> dict[str, State]:
    facts = "$states.result.CustomerMetadataProperties"
    wanted = f"""{{
        'version': $states.result.ModelPackageVersion, 'arn': $states.result.ModelPackageArn,
        'status': $states.result.ModelApprovalStatus, 'facts': $merge([{{'sample_request': ''}}, {facts}]) }}"""
    nothing = {"model": deployment.model.name, "environment": deployment.environment, "released": False,
               "reason": "no version may go live: what is live stays live"}  # fmt: skip
    return {
        "Is a version wanted?": choice(
            when("$newest.version = 0", "Nothing is wanted: what is live stays live"),
            otherwise("Describe the wanted version")),
        "Nothing is wanted: what is live stays live": succeed(nothing),
        "Describe the wanted version": call(
            "sagemaker:describeModelPackage", {"ModelPackageName": expression("$newest.arn")}, "Is it still wanted?",
            assign={"wanted": expression(wanted), "release": expression(_parameters(deployment))}),
        "Is it still wanted?": choice(
            when(f"$not($wanted.status in {jsonata_list(deployment.wanted_statuses)})", WAIT),
            when(f"$count($keys($release)) < {len(PARAMETERS)}", REJECT,
                 reason="It was not registered by the retraining: its metadata does not say how to serve it."),
            otherwise("Describe the serving stack")),
        WAIT: wait(LOOK),
    }  # fmt: skip


def _parameters(deployment: Deployment) -> str:
    """The serving stack's parameters for the described version; what the version doesn't say is left out."""
    facts, fixed = "$states.result.CustomerMetadataProperties", deployment.fixed_instances
    fewest = f"'{fixed}'" if fixed else f"{facts}.serving_minimum_instances"
    most = f"'{fixed}'" if fixed else f"{facts}.serving_maximum_instances"
    return f"""(
        $container := $states.result.InferenceSpecification.Containers[0];
        {{ 'Image': $container.Image, 'ModelDataUrl': $container.ModelDataUrl,
           'ModelPackageArn': $states.result.ModelPackageArn, 'InstanceType': {facts}.serving_instance_type,
           'MinimumInstances': {fewest}, 'MaximumInstances': {most} }} )"""


def _compare_with_stack(deployment: Deployment) -> dict[str, State]:
    stuck = "'The serving stack is in ' & $stack.status & ', which no update can start from.'"
    return {
        "Describe the serving stack": describe_stack(deployment.serving_stack, "Is the stack at rest?"),
        "Is the stack at rest?": choice(
            when(IN_PROGRESS, WAIT),
            when(f"$not({AT_REST})", TELL_STOPPED, problem=expression(stuck)),
            otherwise("Does the stack carry the wanted version?")),
        "Does the stack carry the wanted version?": choice(
            when("$stack.parameters = $release", DESCRIBE_ENDPOINT), otherwise(PREPARE)),
    }  # fmt: skip
