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

from config.settings import Shadow
from stacks.deployment import APPROVED, OFF, ON, Deployment
from stacks.release_busy_endpoint import longest_waits
from stacks.release_judgement import judgement
from stacks.release_leftovers import leftovers
from stacks.release_rollout import rollout
from stacks.release_shadow import FIND, NONE, RELEASED, WITHOUT_SHADOW, as_carried, shadow, shadow_rules
from stacks.release_stack_only import describe_kept_model
from stacks.release_steps import (
    AT_REST,
    DESCRIBE_ENDPOINT,
    IN_PROGRESS,
    LOOK,
    MY_TURN,
    PATIENCE,
    PREPARE,
    REJECT,
    STAGE,
    TAKE_TURN,
    TELL_STOPPED,
    TOLD_TAG,
    TURN_TAG,
    WAIT,
    call,
    choice,
    describe_stack,
    look_again,
    notify,
    otherwise,
    remember,
    succeed,
    tag_of,
    take_turn,
    wait,
    when,
)
from stacks.serving_rollout import longest_seconds
from stacks.states import State, expression, jsonata_list

SUBSTITUTIONS = ("Group", "UpdateRole", "Topic")
"""What the definition leaves to CloudFormation: ARNs of the registry's group, the role of updates and the topic."""
ROLLOUTS = 4
"""The longest execution: a rollout and putting it back, behind another execution that does the same."""
PAGE = 100
NOTHING = "Nothing is wanted: what is live stays live"
START = "Start with nothing tried"


def release_workflow(
    deployment: Deployment, shadow_minutes: int = Shadow().minutes, *, vpc: bool = False
) -> dict[str, Any]:
    """The definition of one environment's reconciler; a shadow has so many minutes before it is compared."""
    states = {**_read_registry(deployment), **_describe_wanted(deployment), **_compare_with_stack(deployment),
              **rollout(deployment), **judgement(deployment), **leftovers(deployment),
              **shadow(deployment, shadow_minutes, vpc=vpc)}  # fmt: skip
    waiting = longest_waits(deployment)
    watching = shadow_minutes * 60 + deployment.model.evaluation.max_runtime_minutes * 60 if deployment.shadows else 0
    what = f"the endpoint {deployment.endpoint}" if deployment.has_endpoint else f"the model of {deployment.place}"
    return {"Comment": f"Make {what} equal to what the model registry says",
            "QueryLanguage": "JSONata", "StartAt": START, "States": states,
            "TimeoutSeconds": ROLLOUTS * longest_seconds(deployment.traffic) + waiting + watching}  # fmt: skip


def _read_registry(deployment: Deployment) -> dict[str, State]:
    statuses = deployment.wanted_statuses
    states = {
        START: remember(
            LOOK,
            tried="",
            purpose="",
            previous={},
            doubts=0,
            rolled_back=0,
            untried=0,
            waited=0,
            met_busy=0,
            asked_for_turn=False,
            problem="",
            reason="",
            sample="",
            paused=False,
            began=expression("$states.context.Execution.StartTime"),
            before={"config": "", "model": ""},
            **({"watched": ""} if deployment.shadows else {}),
        ),
        LOOK: remember(_listing(statuses[0]), newest={"version": 0, "arn": ""}, page="", **_unseen(deployment)),
    }
    for status, then in zip(statuses, [*map(_listing, statuses[1:]), "Is a version wanted?"], strict=True):
        states |= _list_versions(deployment, status, then)
    return states


def _unseen(deployment: Deployment) -> dict[str, Any]:
    """What a look at the registry may find besides the wanted version."""
    shadow = {"shadow": expression(NONE)} if deployment.shadows else {}
    return shadow | ({"champions": False} if deployment.awaits_shadow else {})


def _listing(status: str) -> str:
    return f"List the newest {status} versions"


def _list_versions(deployment: Deployment, status: str, then: str) -> dict[str, State]:
    """Newest first, so that the first page with a usable version holds the newest; pages before it may be empty."""
    query = (f"'ModelPackageGroupName': '${{Group}}', 'ModelPackageType': 'Versioned', "
             f"'ModelApprovalStatus': '{status}', 'SortBy': 'CreationTime', 'SortOrder': 'Descending', "
             f"'MaxResults': {PAGE}")  # fmt: skip
    usable = "[$states.result.ModelPackageSummaryList[ModelPackageStatus = 'Completed']]"
    newest = f"""(
        $usable := {usable}.{{'version': ModelPackageVersion, 'arn': ModelPackageArn}};
        $sort($append([$newest], $usable), function($a, $b) {{ $a.version < $b.version }})[0] )"""
    token = f"$exists($states.result.NextToken) and $count({usable}) = 0 ? $states.result.NextToken : ''"
    paged = f"Is there another page of {status} versions?"
    seen = {"newest": expression(newest), "page": expression(token)}
    if deployment.awaits_shadow and status == APPROVED:
        seen["champions"] = expression(f"$count({usable}) > 0")
    return {
        _listing(status): call(
            "sagemaker:listModelPackages",
            expression(f"$merge([{{{query}}}, $page = '' ? {{}} : {{'NextToken': $page}}])"), paged,
            assign=seen),
        paged: choice(when("$page != ''", _listing(status)), otherwise(then)),
    }  # fmt: skip


def _describe_wanted(deployment: Deployment) -> dict[str, State]:
    facts = "$states.result.CustomerMetadataProperties"
    unsaid = "'sample_request': '', 'sample_answer': '', 'evaluation': 'none'"
    stage = f"'stage': {STAGE}, " if deployment.awaits_shadow else ""
    changed = "$append($states.result.LastModifiedTime, [$states.result.CreationTime])[0]"
    wanted = f"""{{
        {stage}
        'version': $states.result.ModelPackageVersion, 'arn': $states.result.ModelPackageArn,
        'status': $states.result.ModelApprovalStatus, 'changed': {changed},
        'facts': $merge([{{{unsaid}}}, {facts}]) }}"""
    gone = "$contains($problem, /does not exist|not found|[Cc]ould not find|[Cc]annot find/)"
    return {
        "Is a version wanted?": choice(
            when("$newest.version = 0", "See what stays live"),
            otherwise(FIND if deployment.shadows else "Describe the wanted version")),
        "Describe the wanted version": call(
            "sagemaker:describeModelPackage", {"ModelPackageName": expression("$newest.arn")}, "Is it still wanted?",
            assign={"wanted": expression(wanted), "release": expression(_parameters(deployment))},
            catch="Has the version been deleted?"),
        "Has the version been deleted?": choice(
            look_again(gone), otherwise(TELL_STOPPED)),
        "Is it still wanted?": choice(
            when(f"$not($wanted.status in {jsonata_list(deployment.wanted_statuses)})", WAIT),
            when(f"$count($keys($release)) < {len(deployment.parameters)}", REJECT,
                 reason="It was not registered by the retraining: its metadata does not say how to serve it."),
            otherwise("Describe the serving stack")),
        WAIT: wait(LOOK),
        **_nothing_wanted(deployment),
    }  # fmt: skip


def _nothing_wanted(deployment: Deployment) -> dict[str, State]:
    """What is live stays live, and people hear of it once."""
    where = f"{deployment.model.name} in {deployment.environment}"
    live = "$stack.parameters.ModelPackageArn"
    message = f"""'No version of {where} may go live any more: each was rejected or deleted. What is live stays live: '
        & {live} & '\n\nTo keep it, approve it again: ./pushline approve {deployment.model.name} '
        & $substringAfter({live}, 'model-package/{deployment.model.slug}/')
        & '\nAWS: aws sagemaker update-model-package --model-package-arn ' & {live}
        & ' --model-approval-status Approved' & '\nElse push a correction.'"""
    tags = {"ResourceArn": expression("$endpoint.arn")}
    return {
        "See what stays live": describe_stack(deployment.serving_stack, "Is anything live?"),
        "Is anything live?": choice(
            when("$stack.parameters.ModelDataUrl = ''", NOTHING), otherwise("Describe what stays live")),
        "Describe what stays live": call(
            "sagemaker:describeEndpoint", {"EndpointName": deployment.endpoint}, "Do people know?",
            assign={"endpoint": {"arn": expression("$states.result.EndpointArn")}})
        if deployment.has_endpoint else describe_kept_model("Do people know?"),
        "Do people know?": call("sagemaker:listTags", tags, "Have they been told?",
                                assign={"told": tag_of(TOLD_TAG), "turn": tag_of(TURN_TAG)}),
        "Have they been told?": choice(
            when(f"$told = {live}", NOTHING), when(MY_TURN, "Tell that nothing is approved"),
            when("$asked_for_turn", NOTHING), otherwise(TAKE_TURN)),
        TAKE_TURN: take_turn(),
        "Tell that nothing is approved": notify(f"'{where}: no version is approved'", message,
                                                "Remember that people know"),
        "Remember that people know": call(
            "sagemaker:addTags", tags | {"Tags": [{"Key": TOLD_TAG, "Value": expression(live)}]}, NOTHING),
        NOTHING: succeed({"model": deployment.model.name, "environment": deployment.environment, "released": False,
                          "reason": "no version may go live: what is live stays live"}),
    }  # fmt: skip


def _parameters(deployment: Deployment) -> str:
    """The serving stack's parameters for the described version; what the version doesn't say is left out."""
    facts, fixed = "$states.result.CustomerMetadataProperties", deployment.fixed_instances
    fewest, most = f"{facts}.serving_minimum_instances", f"{facts}.serving_maximum_instances"
    values = {
        "Image": "$container.Image", "ModelDataUrl": "$container.ModelDataUrl",
        "ModelPackageArn": "$states.result.ModelPackageArn", "InstanceType": f"{facts}.serving_instance_type",
        "MinimumInstances": f"'{fixed}'" if fixed else fewest, "MaximumInstances": most,
        "Autoscaling": f"{fewest} = {most} ? '{OFF}' : '{ON}'",
        **RELEASED,
    }  # fmt: skip
    given = ", ".join(f"'{name}': {values[name]}" for name in deployment.parameters)
    return f"($container := $states.result.InferenceSpecification.Containers[0]; {{ {given} }})"


def _compare_with_stack(deployment: Deployment) -> dict[str, State]:
    carried, alone = as_carried(deployment), f"$merge([$release, {WITHOUT_SHADOW}])"
    # Whoever began that update rejects the version next; until then it looks as if nobody had tried it.
    failed = (
        "$stack.status = 'UPDATE_ROLLBACK_COMPLETE' and $toMillis($stack.began) >= $toMillis($wanted.changed)"
        f" and $rolled_back < {PATIENCE}"
    )
    stuck = "'The serving stack is in ' & $stack.status & ', which no update can start from.'"
    return {
        "Describe the serving stack": describe_stack(deployment.serving_stack, "Is the stack at rest?"),
        "Is the stack at rest?": choice(
            when(IN_PROGRESS, WAIT),
            when(f"$not({AT_REST})", TELL_STOPPED, problem=expression(stuck)),
            otherwise("Does the stack carry the wanted version?")),
        "Does the stack carry the wanted version?": choice(
            when(f"{carried} = $release", DESCRIBE_ENDPOINT, paused=False),
            when(f"$merge([{carried}, {{'Autoscaling': '{ON}'}}]) = $release", DESCRIBE_ENDPOINT, paused=True),
            when(failed, WAIT, rolled_back=expression("$rolled_back + 1")),
            *shadow_rules(deployment),
            # A version is released without a shadow, which follows when it is live.
            otherwise(PREPARE, **({"release": expression(alone)} if deployment.shadows else {}))),
    }  # fmt: skip
