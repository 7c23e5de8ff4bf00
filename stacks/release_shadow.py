"""The reconciler's shadow: what staging accepted gets a copy of production's requests before anybody approves it.

The model package's life cycle hands a version on, and each change of it is an event that starts both reconcilers:
staging says `Staging`/`Accepted`; production puts it up as shadow variant, waits, compares the captured answers in a
processing job and says `Shadow`/`Compared`; staging then approves it, or asks people and says `Shadow`/`Reported`.
"""

from __future__ import annotations

from typing import Any

from stacks.comparison_job import comparison_job, metric_queries, report_key
from stacks.deployment import AS_ASKED, AT_ONCE, PENDING, SHADOW_PARAMETERS, Deployment
from stacks.environment_stack import CAPTURE
from stacks.release_busy_endpoint import SEE_REST
from stacks.release_steps import (
    DONE,
    LOOK,
    TELL_STOPPED,
    call,
    choice,
    otherwise,
    remember,
    run_job,
    wait,
    when,
)
from stacks.serving_stack import NO_IMAGE, SHADOW_VARIANT, VARIANT
from stacks.states import State, expression

ACCEPTED, COMPARED, REPORTED = "Accepted", "Compared", "Reported"
"""How far a pending version has come; the first in stage STAGING, the others in stage SHADOW."""
STAGING, SHADOW = "Staging", "Shadow"
NAMESPACE = "Pushline"
SUBSTITUTIONS = ("ComparisonRole", "Key", "Traffic")
NONE = f"{{'version': 0, 'arn': '', 'image': '{NO_IMAGE}', 'model_data': '', 'compared': false}}"
"""No version is to be the shadow (JSONata)."""
WITHOUT_SHADOW = f"{{'ShadowImage': '{NO_IMAGE}', 'ShadowModelDataUrl': '', 'ShadowModelPackageArn': ''}}"
RELEASED = {"ShadowImage": "$shadow.image", "ShadowModelDataUrl": "$shadow.model_data",
            "ShadowModelPackageArn": "$shadow.arn", "Rollout": f"'{AS_ASKED}'"}  # fmt: skip
PURPOSE, GOING = "shadow", "end the shadow"
FIND = "List the versions that staging accepted"
CHANGE, END = "Put up or take away the shadow", "Take the shadow away before the release"
DUE = "Is there a shadow to compare?"
MEASURE, PLACES = "Measure both variants", "Look for captured answers"
COMPARE = "Compare the answers"
PAGE = 100


def shadow(deployment: Deployment, minutes: int, *, vpc: bool) -> dict[str, State]:
    """From the registry to a shadow variant, and from its captured answers to what staging is told of them."""
    if not deployment.shadows:
        return {}
    return {**_find(deployment), **_change(), **_wait(minutes), **_measure(deployment), **_look(deployment),
            **_compare(deployment, vpc)}  # fmt: skip


def life_cycle(stage: str, status: str, description: str) -> dict[str, Any]:
    """A version's life cycle as UpdateModelPackage takes it; `description` is JSONata."""
    return {"Stage": stage, "StageStatus": status,
            "StageDescription": expression(f"$substring({description}, 0, 1000)")}  # fmt: skip


def as_carried(deployment: Deployment) -> str:
    """The stack's parameters as a release compares them: how traffic moved last time is no difference."""
    carried = "$stack.parameters"
    return f"$merge([{carried}, {{'Rollout': '{AS_ASKED}'}}])" if deployment.shadows else carried


def shadow_rules(deployment: Deployment) -> list[State]:
    """What the comparison of stack and registry does about a shadow, once they are not equal."""
    if not deployment.shadows:
        return []
    wanted = ", ".join(f"'{name}': $release.{name}" for name in SHADOW_PARAMETERS)
    return [
        when(f"$merge([{as_carried(deployment)}, {{{wanted}}}]) = $release", CHANGE),
        when("$stack.parameters.ShadowModelDataUrl != ''", END),
    ]


def _find(deployment: Deployment) -> dict[str, State]:
    """The newest pending version that staging accepted and that is newer than what production wants."""
    query = (f"'ModelPackageGroupName': '{deployment.model.slug}', 'ModelPackageType': 'Versioned', "
             f"'ModelApprovalStatus': '{PENDING}', 'SortBy': 'CreationTime', 'SortOrder': 'Descending', "
             f"'MaxResults': {PAGE}")  # fmt: skip
    accepted = f"""[$states.result.ModelPackageSummaryList[ModelPackageVersion > $newest.version and (
        (ModelLifeCycle.Stage = '{STAGING}' and ModelLifeCycle.StageStatus = '{ACCEPTED}')
        or ModelLifeCycle.Stage = '{SHADOW}')]]"""
    newest = f"""(
        $found := {accepted}.{{'version': ModelPackageVersion, 'arn': ModelPackageArn}};
        $sort($append([{{'version': 0, 'arn': ''}}], $found), function($a, $b) {{ $a.version < $b.version }})[0] )"""
    token = f"$exists($states.result.NextToken) and $count({accepted}) = 0 ? $states.result.NextToken : ''"
    described = f"""{{
        'version': $states.result.ModelPackageVersion, 'arn': $states.result.ModelPackageArn,
        'image': $states.result.InferenceSpecification.Containers[0].Image,
        'model_data': $states.result.InferenceSpecification.Containers[0].ModelDataUrl,
        'compared': $states.result.ModelLifeCycle.Stage = '{SHADOW}' }}"""
    return {
        FIND: call(
            "sagemaker:listModelPackages",
            expression(f"$merge([{{{query}}}, $page = '' ? {{}} : {{'NextToken': $page}}])"),
            "Is there another page of accepted versions?",
            assign={"candidate": expression(newest), "page": expression(token)}),
        "Is there another page of accepted versions?": choice(
            when("$page != ''", FIND), when("$candidate.version = 0", "Describe the wanted version"),
            otherwise("Describe the accepted version")),
        "Describe the accepted version": call(
            "sagemaker:describeModelPackage", {"ModelPackageName": expression("$candidate.arn")},
            "Describe the wanted version", assign={"shadow": expression(described)},
            catch="Has the version been deleted?"),
    }  # fmt: skip


def _change() -> dict[str, State]:
    """All at once: SageMaker shifts traffic in steps between equal sets of variants only."""
    purpose = f"$release.ShadowModelDataUrl = '' ? '{GOING}' : '{PURPOSE}'"
    without = f"$merge([$stack.parameters, {WITHOUT_SHADOW}, {{'Rollout': '{AT_ONCE}'}}])"
    return {
        CHANGE: remember(SEE_REST, purpose=expression(purpose),
                         target=expression(f"$merge([$release, {{'Rollout': '{AT_ONCE}'}}])")),
        END: remember(SEE_REST, purpose=GOING, target=expression(without)),
    }  # fmt: skip


def _wait(minutes: int) -> dict[str, State]:
    """Every execution that finds the shadow waits for itself, so that none of them has to survive."""
    pending = "$release.ShadowModelPackageArn = '' or $shadow.compared"
    return {
        DUE: choice(when(pending, DONE), when("$watched = $shadow.arn", MEASURE),
                    otherwise("Let production's requests pass")),
        "Let production's requests pass": wait("Remember which shadow had its time", minutes * 60),
        "Remember which shadow had its time": remember(LOOK, watched=expression("$shadow.arn")),
    }  # fmt: skip


def _measure(deployment: Deployment) -> dict[str, State]:
    """What CloudWatch knows of this fleet's two variants; then where their answers of these two days would be."""
    found = "[$states.result.MetricDataResults[Id = $name].Values]"
    measured = f"""(
        $values := function($name) {{ {found} }};
        $of := function($variant) {{ {{
            'requests': $sum($values($variant & '_requests')), 'errors': $sum($values($variant & '_errors')),
            'p99_ms': $round($max($append([0], $values($variant & '_p99'))) / 1000, 3) }} }};
        $string({{'production': $of('production'), 'shadow': $of('shadow')}}) )"""
    root = f"'{CAPTURE}{deployment.place}/{deployment.endpoint}/'"
    days = """[0..1].$fromMillis($toMillis($states.context.State.EnteredTime) - $ * 86400000, '[Y0001]/[M01]/[D01]')"""
    places = f"""(
        $days := [{days}];
        $days.{{'day': $, 'variant': 'production', 'prefix': {root} & '{VARIANT}/' & $ & '/'}}
            ~> $append($days.{{'day': $, 'variant': 'shadow', 'prefix': {root} & '{SHADOW_VARIANT}/' & $ & '/'}}) )"""
    gone = "'Changed by hand, or rolled back unseen: the endpoint has no shadow variant, and its stack says it has.'"
    return {
        MEASURE: choice(
            when("$not($config.shadow)", TELL_STOPPED, problem=expression(gone)),
            otherwise("Ask CloudWatch about both variants")),
        "Ask CloudWatch about both variants": call(
            "cloudwatch:getMetricData", metric_queries(deployment), PLACES,
            assign={"measured": expression(measured), "places": expression(places), "found": []}),
    }  # fmt: skip


def _look(deployment: Deployment) -> dict[str, State]:
    """A job fails on an input that is not there, so that each place is looked at before."""
    seen = "$states.result.KeyCount > 0 ? [$append($found, $places[0])] : $found"
    rest = "[$filter($places, function($place, $index) { $index > 0 })]"
    both = "'production' in $found.variant and 'shadow' in $found.variant"
    nothing = "{'summary': 'No request was captured of both variants.', 'metrics': {'ShadowRequestsCompared': 0}}"
    return {
        PLACES: call(
            "s3:listObjectsV2",
            {"Bucket": "${Traffic}", "Prefix": expression("$places[0].prefix"), "MaxKeys": 1},
            "Is there another place?", assign={"found": expression(seen), "places": expression(rest)}),
        "Is there another place?": choice(
            when("$count($places) > 0", PLACES), when(both, COMPARE),
            otherwise("Publish the comparison", comparison=expression(nothing))),
    }  # fmt: skip


def _compare(deployment: Deployment, vpc: bool) -> dict[str, State]:
    report = report_key(deployment)
    dimensions = f"'Dimensions': [{{'Name': 'Model', 'Value': '{deployment.model.name}'}}]"
    data = f"""[$each($comparison.metrics, function($value, $name) {{
        {{'MetricName': $name, 'Value': $value, {dimensions}}} }})]"""
    read = f"""( $report := $parse($states.result.Body);
        {{'summary': $report.summary & '. Report: s3://${{Traffic}}/' & {report}, 'metrics': $report.metrics}} )"""
    return {
        COMPARE: run_job("sagemaker:createProcessingJob", comparison_job(deployment, vpc=vpc), "Read the comparison",
                         catch="Does another execution compare them?"),
        "Does another execution compare them?": choice(
            when("$contains($problem, /ResourceInUse|already exists/)", DONE), otherwise(TELL_STOPPED)),
        "Read the comparison": call(
            "s3:getObject", {"Bucket": "${Traffic}", "Key": expression(f"{report} & 'report.json'")},
            "Publish the comparison", assign={"comparison": expression(read)}),
        "Publish the comparison": call(
            "cloudwatch:putMetricData", {"Namespace": NAMESPACE, "MetricData": expression(data)},
            "Hand the comparison to staging"),
        "Hand the comparison to staging": call(
            "sagemaker:updateModelPackage",
            {"ModelPackageArn": expression("$shadow.arn"),
             "ModelLifeCycle": life_cycle(SHADOW, COMPARED, "$comparison.summary")}, DONE),
    }  # fmt: skip
