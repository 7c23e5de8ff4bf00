"""Writes docs/fidelity.md: `python -m rehearsal.fidelity > docs/fidelity.md`; a test compares the two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from botocore import xform_name

from rehearsal.cloud.resource_types import lacking
from rehearsal.environments import images
from rehearsal.service import Cloud, Service, model
from rehearsal.services import SERVICES

NOT_AS_IN_AWS = (
    ("containers", "Jobs and endpoints run as processes in an environment with the image's packages. `/opt/ml/` in a"
     " definition becomes the job's private folder. The Python is 3.11 whatever the image's own is."),
    ("the image's toolkit", "`pip install .` of the code is skipped; FailureReason holds more of the log than the"
     " XGBoost image's own."),
    ("network", "VPCs, subnets, endpoints and security groups are records of EC2. Who puts a job or model into a VPC is"
     " checked (the ids, one VPC, the role's permissions; for Glue also the way to S3 and the workers' rule), and no"
     " traffic is bounded: endpoint policies and rules are not evaluated, flow logs stay empty. Network isolation is"
     " enforced with `unshare --net` for jobs where the machine permits it, else recorded only; for endpoints recorded"
     " only."),
    ("budgets", "Recorded; as nothing costs anything here, nobody is told."),
    ("volumes and keys", "Volume keys are recorded only. KMS permissions are checked for S3 and SNS under a key, not"
     " for endpoints' storage and CodeCommit."),
    ("Spark", "Runs with local[2]; worker type and number are recorded only. Glue's Python holds a subset of its"
     " modules. `GlueContext` gives the Spark session; DynamicFrames are refused."),
    ("spot", "Accepted and never interrupted; checkpoints are copied at start and end."),
    ("shadow variants", "Copies wait in a line of at most 100 for each shadow variant; what does not fit is dropped and"
     " counted (`ShadowRequestsDropped`, namespace `Rehearsal`), where AWS tells no number. Adding or removing one by"
     " canary or linear is refused, as other variant names are."),
    ("endpoints", "Multi-model endpoints are refused. A server that exits while it"
     " starts fails the deployment at once, where AWS tries again until the time limit. An instance in service that has"
     " not answered /ping five times, each five seconds after the last, is replaced; AWS does not say its numbers."),
    ("serverless endpoints", "One server process answers for all of a variant's concurrency: one cold start after"
     " idling, not one for each concurrent request. It idles out after ten minutes (scaled; AWS does not say when)."
     " MemorySizeInMB is recorded only."),
    ("asynchronous endpoints", "A request that was being worked on when the rehearsal stopped is asked again; a"
     " request's limits are never scaled. The inference response in a notification is refused; the platform's own log"
     " (`data-log`) is not written."),
    ("rollouts", "A step of a canary or linear rollout switches on whole instances."),
    ("autoscaling", "Application Auto Scaling of a variant's number of instances by target tracking; step and scheduled"
     " scaling and other namespaces are refused. The service-linked role is made at the first registration, with AWS's"
     " own policy, and makes every change; metrics are read as AWS itself. AWS does not say how it computes a number of"
     " instances: here it is the metric's share of the target, the newest value to grow, the highest of fifteen to"
     " shrink. A minute of `--time-scale` is one of the invocations a minute that a policy asks for."),
    ("Model Monitor", "Job definitions and schedules of stacks are checked against the API's shapes and for their"
     " endpoint, recorded, and never run: AWS's analyzer image is not public. The API's operations on them are"
     " refused."),
    ("alarms", "Evaluated by the rehearsal (dimensions, M of N, missing data, percentiles, periods that slide by the"
     " minute or, where together they pass a day, by the hour); metric math, anomaly detection and wall clock windows"
     " are refused."),
    ("CloudFormation's service role", "Enforced for the types listed below, and for alarms and dashboards (the"
     " calls of their handlers are decided before they are made); other types are provisioned in-process. A"
     " dashboard's tags are not kept."),
    ("accounts", "As many as the assembly names. Across accounts a call takes the caller's own permission and the"
     " resource's policy for buckets, keys, topics, queues, functions, event buses and model package groups; the"
     " registries of AWS's images are not asked. Assets are published, and stacks deployed, as each account's"
     " root, not through the bootstrap's roles. Accounts are known from `deploy`; what another client deployed into"
     " further accounts, `status` does not see."),
    ("IAM", "Of AWS's managed policies only AdministratorAccess allows anything. When Glue or SageMaker assumes a role,"
     " `aws:SourceArn` names something of theirs in the account, not the job."),
    ("Step Functions", "`TimeoutSeconds` as an expression is refused; `MaxDelaySeconds` and jitter are ignored;"
     " execution logs are not written to CloudWatch."),
    ("EventBridge Scheduler", "A schedule's time runs `--time-scale` times as fast from when it was made or changed, to"
     " the second; one that was due while the rehearsal was down fires once at the next start, other times that passed"
     " are left out. An invocation that a kill interrupts is repeated. A flexible window opens with its invocation; the"
     " key of a schedule is recorded only. Targets are functions, state machines and event buses; others, universal"
     " targets too, are refused."),
    ("Lambda", "Asynchronous events wait in one queue, eight run at a time; what is throttled waits up to six hours,"
     " what failed is tried twice more. They survive a kill; what was running then is run again."),
    ("git", "Pushes and pulls authenticate as one local user; GitPull and GitPush are not IAM-checked. GetDifferences"
     " reports a rename as a deletion and an addition."),
    ("builds", "Docker, secrets, report groups and batch builds are refused by their key."),
    ("survival", "Everything of our services is on disk before a call returns; what ministack keeps is saved half a"
     " second after a change. Work that was running is told as lost at the next start; a stack that was"
     " being changed is rolled back, and with it an endpoint that had switched already, while the rehearsal answers."),
    ("time", "`--time-scale` divides waits, retry intervals, bakes, alarm periods and schedules, never the limits of"
     " jobs, builds and rollouts."),
)  # fmt: skip


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([*_introduction(), *_differences(), *_services(), *_types(), *_images(), ""])


def _introduction() -> Iterator[str]:
    yield "# What the rehearsal does faithfully"
    yield ""
    yield "Written by `python -m rehearsal.fidelity`; a test keeps it true. What is not listed here is executed by"
    yield "ministack, or refused: an operation or a resource type that neither has is an error that names it."
    yield ""


def _differences() -> Iterator[str]:
    yield "## Not as in AWS"
    yield ""
    yield "| what | how it differs |"
    yield "|---|---|"
    yield from (f"| {what} | {how} |" for what, how in NOT_AS_IN_AWS)
    yield ""


def _services() -> Iterator[str]:
    yield "## Services of ours: the operations that run"
    yield ""
    for service in SERVICES:
        rest = "the others are ministack's" if service.falls_through else "the others are refused"
        yield f"- **{service.name}** ({rest}): {', '.join(operations(service))}"
    yield ""


def operations(service: type[Service]) -> list[str]:
    """The operations of AWS's model that a service of ours runs."""
    return [name for name in model(service.name).operation_names if callable(getattr(service, xform_name(name), None))]


def resource_types() -> list[str]:
    """The CloudFormation types that are ours, refusals included."""
    nowhere = cast(Cloud, None)  # types are made without touching the cloud
    ours: dict[str, Any] = lacking(nowhere)
    for service in SERVICES:
        unstarted = service.__new__(service)
        unstarted.cloud = nowhere
        ours |= unstarted.resource_types()
    return sorted(ours)


def _types() -> Iterator[str]:
    yield "## CloudFormation types of ours"
    yield ""
    yield from (f"- {name}" for name in resource_types())
    yield ""


def _images() -> Iterator[str]:
    yield "## Images and runtimes that are stood in for"
    yield ""
    yield from (f"- {name}" for name in images())


if __name__ == "__main__":
    print(page(), end="")
