"""A registry, a serving stack and its endpoint, in memory: what the reconciler reads and changes in its tests."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from config import load_settings
from contract import load_models
from stacks.deployment import Deployment, deployments
from stacks.release_workflow import release_workflow
from tests.conftest import ROOT
from tests.stacks.state_machine import RUN, Execution, TaskFailed, Timing, run

MODEL = next(model for model in load_models(ROOT, load_settings().guardrails) if model.name == "flight_delay")
STAGING, PRODUCTION = deployments(MODEL)
ENVIRONMENTS = pytest.mark.parametrize("deployment", [STAGING, PRODUCTION], ids=lambda found: found.environment)

FILLED = {"Group": "arn:aws:sagemaker:us-east-1:000000000000:model-package-group/flight-delay",
          "UpdateRole": "arn:aws:iam::000000000000:role/update", "Topic": "arn:aws:sns:us-east-1:000000000000:people",
          "ComparisonRole": "arn:aws:iam::000000000000:role/comparison", "Traffic": "traffic",
          "Key": "arn:aws:kms:us-east-1:000000000000:key/1"}  # fmt: skip
BOTOCORE_NAMES = {"sagemakerruntime": "sagemaker-runtime"}
NO_MODEL = {"Image": "none", "ModelDataUrl": "", "ModelPackageArn": "", "InstanceType": "ml.m6i.large",
            "MinimumInstances": "1", "MaximumInstances": "1", "Autoscaling": "off", "ShadowImage": "none",
            "ShadowModelDataUrl": "", "ShadowModelPackageArn": "", "Rollout": "as_asked"}  # fmt: skip
ENDPOINT = "arn:aws:sagemaker:us-east-1:000000000000:endpoint/flight-delay"
SAMPLE = "s3://artifacts/bundles/flight-delay/ab12/sample_request.csv"
ANSWER = "s3://artifacts/evaluation/flight-delay/run/sample_answer.json"
UNHEALTHY = "did not pass\nthe ping health check"
BUSY = f'Cannot update in-progress endpoint "{ENDPOINT}". (Service: SageMaker, Status Code: 400)'
_SESSION = botocore.session.get_session()


def failing(error: str, cause: str) -> Callable[[], None]:
    """An interruption by which the call fails."""

    def fail() -> None:
        raise TaskFailed(error, cause)

    return fail


def package_arn(version: int) -> str:
    return f"arn:aws:sagemaker:us-east-1:000000000000:model-package/flight-delay/{version}"


@dataclass
class World:
    """`broken` versions make the stack roll back, `silent` ones only the endpoint; `answer` is the model's."""

    deployment: Deployment
    packages: dict[int, dict[str, Any]] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    stack_status: str = "CREATE_COMPLETE"
    endpoint: dict[str, str] | None = None
    endpoint_status: str = "InService"
    scaling: int = 0
    """How often it is still seen Updating, since instances are added or removed; as long it takes no update."""
    broken: set[int] = field(default_factory=set)
    silent: set[int] = field(default_factory=set)
    answer: str | Exception = '{"predictions": [0.42]}\n'
    recorded: str = '{"predictions": [0.42]}'
    tags: dict[str, str] = field(default_factory=dict)
    configs: dict[str, str] = field(default_factory=dict)
    """Endpoint configs to models, the oldest first."""
    bakes: int = 0
    """How often the stack is seen in progress after each update."""
    asked: int = 0
    deleted: list[str] = field(default_factory=list)
    page_size: int = 100
    rolls_back_to: str = "UPDATE_ROLLBACK_COMPLETE"
    outcomes: list[tuple[str, str]] = field(default_factory=list)
    """Each update's token and why it rolled back, if it did; the oldest first."""
    updates: list[dict[str, str]] = field(default_factory=list)
    told: list[dict[str, str]] = field(default_factory=list)
    captured: tuple[str, ...] = ("AllTraffic", "Shadow")
    """The variants of which there are captured answers."""
    jobs: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """What was published, but for the `marks` of releases on the dashboard."""
    marks: list[tuple[str, int]] = field(default_factory=list)
    interrupt: dict[str, Callable[[], Any]] = field(default_factory=dict)
    """Run once, before the named operation is answered; what it raises is the answer."""

    def __post_init__(self) -> None:
        self.parameters = self.no_model
        self._baking = self._ticks = 0
        self._updated: dict[str, str] = {}

    def now(self) -> str:
        """A clock that moves on with each look at it, from an hour before the executions start."""
        self._ticks += 1
        return (datetime(2013, 3, 1, 5) + timedelta(seconds=self._ticks)).isoformat() + "Z"

    @property
    def no_model(self) -> dict[str, str]:
        return {name: NO_MODEL[name] for name in self.deployment.parameters}

    @property
    def config(self) -> str:
        return next(reversed(self.configs), "")

    def register(self, version: int, status: str, **facts: str) -> None:
        metadata = {"serving_instance_type": "ml.m6i.large", "serving_minimum_instances": "2",
                    "serving_maximum_instances": "4", "approval": "automatic", "sample_request": SAMPLE,
                    "sample_answer": ANSWER, "evaluation": "s3://artifacts/evaluation/flight-delay/run/",
                    "metric": "auc", "challenger": "0.71", "champion": "0.70", "commit": "1a2b",
                    "trigger": "drift", "reason": "it drifts", "lineage": "s3://lineage"}  # fmt: skip
        container = {"Image": f"683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:{version}",
                     "ModelDataUrl": f"s3://artifacts/training/flight-delay/{version}/output/model.tar.gz"}  # fmt: skip
        self.packages[version] = {
            "ModelPackageVersion": version,
            "ModelPackageArn": package_arn(version),
            "ModelApprovalStatus": status,
            "ModelPackageStatus": "Completed",
            "CreationTime": self.now(),
            "InferenceSpecification": {"Containers": [container]},
            "CustomerMetadataProperties": {name: text for name, text in (metadata | facts).items() if text},
        }

    def wanted_parameters(self, version: int) -> dict[str, str]:
        package, fixed = self.packages[version], self.deployment.fixed_instances
        facts = package["CustomerMetadataProperties"]
        fewest, most = (facts[f"serving_{which}_instances"] for which in ("minimum", "maximum"))
        values = package["InferenceSpecification"]["Containers"][0] | {
            "ModelPackageArn": package_arn(version), "InstanceType": facts["serving_instance_type"],
            "MinimumInstances": str(fixed or fewest), "MaximumInstances": most,
            "Autoscaling": "off" if fewest == most else "on", "ShadowImage": "none", "ShadowModelDataUrl": "",
            "ShadowModelPackageArn": "", "Rollout": "as_asked"}  # fmt: skip
        return {name: values[name] for name in self.deployment.parameters}

    def live(self, version: int) -> None:
        self.parameters = self.wanted_parameters(version)
        self.stack_status, self.endpoint = "UPDATE_COMPLETE", dict(self.parameters)
        self.tags["pushline:smoke-tested"] = package_arn(version)
        self._deploy()

    def rolled_back(self) -> None:
        """Another execution's update has just failed."""
        self.stack_status, self._updated = "UPDATE_ROLLBACK_COMPLETE", {"LastUpdatedTime": self.now()}

    def _deploy(self) -> None:
        number = len(self.configs) + len(self.deleted)
        title = self.deployment.title
        self.configs[f"{title}EndpointConfig-{number}"] = f"{title}Model-{number}"

    def decide(self, version: int, status: str) -> None:
        """What a person decides about a version."""
        self.packages[version] |= {"ModelApprovalStatus": status, "LastModifiedTime": self.now()}

    @property
    def live_version(self) -> int:
        return version_of(self.endpoint["ModelPackageArn"]) if self.endpoint else 0

    def status(self, version: int) -> str:
        return str(self.packages[version]["ModelApprovalStatus"])

    def reconcile(self, name: str = RUN, timing: Timing | None = None) -> Execution:
        text = re.sub(r"\$\{(\w+)\}", lambda name: FILLED[name[1]], json.dumps(release_workflow(self.deployment)))
        definition = json.loads(text)
        calls = {name: partial(self._call, state["Resource"]) for name, state in definition["States"].items()
                 if state["Type"] == "Task"}  # fmt: skip
        return run(definition, {"an event": "of any content"}, calls, name, timing=timing)

    def _call(self, resource: str, arguments: dict[str, Any]) -> Any:
        service, operation = (
            resource.removeprefix("arn:aws:states:::").removeprefix("aws-sdk:").removesuffix(".sync").split(":")
        )
        name = operation[0].upper() + operation[1:]
        shape = _SESSION.get_service_model(BOTOCORE_NAMES.get(service, service)).operation_model(name).input_shape
        report = ParamValidator().validate(arguments, shape)
        assert not report.has_errors(), f"{operation}: {report.generate_report()}"
        if interruption := self.interrupt.pop(operation, None):
            interruption()
        method = re.sub(r"([A-Z])", lambda letter: "_" + letter[1].lower(), operation)
        return getattr(self, "_" + method)(arguments)

    def _list_model_packages(self, query: dict[str, Any]) -> dict[str, Any]:
        newest_first = [self.packages[version] for version in sorted(self.packages, reverse=True)]
        start = int(query.get("NextToken", "0"))
        # As in the service, a page is cut before the filter is applied.
        page = newest_first[start : start + self.page_size]
        more = {"NextToken": str(start + self.page_size)} if start + self.page_size < len(newest_first) else {}
        found = [package for package in page if package["ModelApprovalStatus"] == query["ModelApprovalStatus"]]
        return {"ModelPackageSummaryList": found, **more}

    def _describe_model_package(self, query: dict[str, Any]) -> dict[str, Any]:
        if version_of(query["ModelPackageName"]) not in self.packages:
            raise TaskFailed("SageMaker.SageMakerException", "ModelPackage does not exist.")
        return self.packages[version_of(query["ModelPackageName"])]

    def _update_model_package(self, change: dict[str, Any]) -> dict[str, Any]:
        said = change.get("ApprovalDescription") or change["ModelLifeCycle"]["StageDescription"]
        assert not set("\n\r\t") & set(said)
        assert len(said) <= 1024
        self.packages[version_of(change["ModelPackageArn"])] |= change | {"LastModifiedTime": self.now()}
        return {}

    def _describe_stacks(self, query: dict[str, Any]) -> dict[str, Any]:
        parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in self.parameters.items()]
        self._baking -= 1
        status = "UPDATE_IN_PROGRESS" if self._baking >= 0 else self.stack_status
        return {"Stacks": [{"StackStatus": status, "Parameters": parameters, **self._updated}]}

    def _update_stack(self, update: dict[str, Any]) -> dict[str, Any]:
        assert update["UsePreviousTemplate"] is True
        assert update["RoleARN"] == FILLED["UpdateRole"]
        self._baking = self.bakes
        target = {pair["ParameterKey"]: pair["ParameterValue"] for pair in update["Parameters"]}
        if target == self.parameters:
            raise TaskFailed("CloudFormation.CloudFormationException", "No updates are to be performed.")
        self.updates.append(target)
        self._updated = {"LastUpdatedTime": self.now()}
        version, token = version_of(target["ModelPackageArn"]), update["ClientRequestToken"]
        if self.scaling > 0 and _of_endpoint(target) != _of_endpoint(self.parameters):
            return self._roll_back(token, BUSY)
        if {version, version_of(target.get("ShadowModelPackageArn", ""))} & self.broken:
            return self._roll_back(token, UNHEALTHY)
        self.parameters, self.stack_status = target, "UPDATE_COMPLETE"
        self.outcomes.append((token, ""))
        if version not in self.silent or not target["ModelDataUrl"]:
            self.endpoint = dict(target) if target["ModelDataUrl"] else None
            self._deploy()
        return {}

    def _roll_back(self, token: str, reason: str) -> dict[str, Any]:
        self.stack_status = self.rolls_back_to
        self.outcomes.append((token, reason))
        return {}

    def _describe_stack_events(self, query: dict[str, Any]) -> dict[str, Any]:
        endpoint, events = {"LogicalResourceId": "FlightDelayStagingEndpoint"}, []
        for token, reason in reversed(self.outcomes):
            failed = [
                {"LogicalResourceId": "Other", "ResourceStatus": "UPDATE_FAILED",
                 "ResourceStatusReason": "Resource update cancelled"},
                endpoint | {"ResourceStatus": "UPDATE_FAILED", "ResourceStatusReason": reason}]  # fmt: skip
            status = self.rolls_back_to if reason else "UPDATE_COMPLETE"
            own = [{"LogicalResourceId": "FlightDelayStaging", "ResourceStatus": status},
                   endpoint | {"ResourceStatus": "UPDATE_COMPLETE"}, *(failed if reason else [])]  # fmt: skip
            events += [event | {"ClientRequestToken": token} for event in own]
        # Whoever made the stack gave no token.
        events.append(endpoint | {"ResourceStatus": "CREATE_FAILED", "ResourceStatusReason": "long ago"})
        return {"StackEvents": events}

    def _describe_endpoint(self, query: dict[str, Any]) -> dict[str, Any]:
        if not self.endpoint:
            raise TaskFailed("SageMaker.SageMakerException", 'Could not find endpoint "flight-delay-staging".')
        failure = {"FailureReason": "The alarm rang."} if self.silent else {}
        self.scaling -= 1
        status = "Updating" if self.scaling >= 0 else self.endpoint_status
        return {"EndpointStatus": status, "EndpointConfigName": self.config, "EndpointArn": ENDPOINT,
                **failure}  # fmt: skip

    def _describe_endpoint_config(self, query: dict[str, Any]) -> dict[str, Any]:
        shadowed = self.endpoint and self.endpoint.get("ShadowModelDataUrl")
        return {"ProductionVariants": [{"ModelName": self.configs[query["EndpointConfigName"]]}],
                "CreationTime": "2013-03-01T05:12:00.000Z",
                **({"ShadowProductionVariants": [{"ModelName": "shadow"}]} if shadowed else {})}  # fmt: skip

    def _list_endpoint_configs(self, query: dict[str, Any]) -> dict[str, Any]:
        return {"EndpointConfigs": [{"EndpointConfigName": name, "CreationTime": self._made(name)}
                                    for name in (*self.configs, "SomebodysEndpointConfig-1")]}  # fmt: skip

    def _list_models(self, query: dict[str, Any]) -> dict[str, Any]:
        return {"Models": [{"ModelName": name, "CreationTime": self._made(name)}
                           for name in (*self.configs.values(), "SomebodysModel-1")]}  # fmt: skip

    def _made(self, name: str) -> str:
        """The newest was made by the update that this execution began."""
        newest = name in (self.config, self.configs.get(self.config))
        return "2013-03-01T06:00:30.000Z" if newest else "2013-02-01T06:00:00.000Z"

    def _delete_endpoint_config(self, query: dict[str, Any]) -> dict[str, Any]:
        self.deleted.append(query["EndpointConfigName"])
        return {}

    def _delete_model(self, query: dict[str, Any]) -> dict[str, Any]:
        self.deleted.append(query["ModelName"])
        return {}

    def _list_tags(self, query: dict[str, Any]) -> dict[str, Any]:
        assert query["ResourceArn"] == ENDPOINT
        return {"Tags": [{"Key": key, "Value": value} for key, value in self.tags.items()]}

    def _add_tags(self, query: dict[str, Any]) -> dict[str, Any]:
        assert query["ResourceArn"] == ENDPOINT
        self.tags |= {tag["Key"]: tag["Value"] for tag in query["Tags"]}
        return {}

    def _describe_model(self, query: dict[str, Any]) -> dict[str, Any]:
        assert self.endpoint
        container = {key: self.endpoint[key] for key in ("Image", "ModelDataUrl")}
        variables = {"MODEL_PACKAGE_ARN": self.endpoint["ModelPackageArn"]}
        return {"PrimaryContainer": {**container, "Environment": variables}}

    def _get_metric_data(self, query: dict[str, Any]) -> dict[str, Any]:
        assert query["StartTime"] == "2013-03-01T05:00:00Z"
        values = {"requests": [30.0, 12.0], "errors": [0.0], "p99": [4000.0, 5500.0]}
        return {"MetricDataResults": [{"Id": each["Id"], "Values": values[each["Id"].split("_")[1]]}
                                      for each in query["MetricDataQueries"]]}  # fmt: skip

    def _list_objects_v2(self, query: dict[str, Any]) -> dict[str, Any]:
        place = f"capture/{self.deployment.place}/{self.deployment.endpoint}/"
        variant, _, day = query["Prefix"].removeprefix(place).partition("/")
        return {"KeyCount": int(variant in self.captured and day == "2013/03/01/")}

    def _create_processing_job(self, job: dict[str, Any]) -> dict[str, Any]:
        if job["ProcessingJobName"] in [known["ProcessingJobName"] for known in self.jobs]:
            raise TaskFailed("SageMaker.ResourceInUseException", "Job name must be unique: it already exists")
        self.jobs.append(job)
        return {}

    def _put_metric_data(self, data: dict[str, Any]) -> dict[str, Any]:
        assert data["Namespace"] == "Pushline"
        of_releases = {"ReleasedVersion", "RejectedVersion"}
        self.marks += [
            (one["MetricName"], one["Value"]) for one in data["MetricData"] if one["MetricName"] in of_releases
        ]
        self.metrics += [one for one in data["MetricData"] if one["MetricName"] not in of_releases]
        return {}

    def _get_object(self, query: dict[str, Any]) -> dict[str, Any]:
        if query["Bucket"] == "traffic":
            assert query["Key"].endswith("/report.json")
            return {
                "Body": json.dumps(
                    {"summary": "3.0 % of the answers differ", "metrics": {"ShadowRequestsCompared": 42}}
                )
            }
        return {"Body": {SAMPLE: "1,2,3\n", ANSWER: self.recorded}[f"s3://{query['Bucket']}/{query['Key']}"]}

    def _invoke_endpoint(self, request: dict[str, Any]) -> dict[str, Any]:
        assert (request["Body"], request["ContentType"]) == ("1,2,3\n", "text/csv")
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"Body": self.answer, "ContentType": "application/json"}

    def _publish(self, message: dict[str, str]) -> dict[str, Any]:
        self.told.append(message)
        return {}


def _of_endpoint(parameters: dict[str, str]) -> dict[str, str]:
    """The parameters that UpdateEndpoint is called for when they change."""
    return {name: value for name, value in parameters.items() if name not in ("Autoscaling", "MaximumInstances")}


def version_of(arn: str) -> int:
    return int(arn.rpartition("/")[2] or 0)
