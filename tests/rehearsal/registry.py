"""Versions of a tiny model, registered as the retraining registers them: what tests of releases roll out."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehearsal.server import Running
from tests.conftest import Assembly
from tests.rehearsal.serving import OF_THE_PLATFORM, packed
from tests.rehearsal.waiting import until

GROUP = "flight-delay"
REQUEST = "[1, 2]"
IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:3.2-0"
GOOD = """
import json, os, time

def model_fn(model_dir):
    return float(open(os.path.join(model_dir, "factor.txt")).read())

def input_fn(body, content_type):
    return json.loads(body)

def predict_fn(data, model):
    return [model * value for value in data]

def output_fn(prediction, accept):
    return json.dumps({"predictions": prediction}), "application/json"
"""
"""What `GOOD` answers is recorded with every version as the answer at evaluation."""
CRASHES = GOOD.replace("    return float(", "    os._exit(3)\n    return float(")
HANGS = GOOD.replace("    return float(", "    time.sleep(3600)\n    return float(")
OTHER_SHAPE = GOOD.replace('{"predictions": prediction}', "prediction")
ODD_REQUEST = "[3, 4]"
FAILS_SOME = GOOD.replace("    return [model", "    assert data != [3, 4], 'no such row'\n    return [model")
"""Answers the sample request, and refuses the odd one."""
SLOW_SECONDS = 8
SLOW = GOOD.replace("    return [model", f"    time.sleep({SLOW_SECONDS})\n    return [model")


@dataclass
class Registry:
    """Registers versions at a deployed rehearsal, and looks at what became of them."""

    at: Running
    factor: float = 1.0

    def register(
        self,
        script: str = GOOD,
        *,
        status: str = "PendingManualApproval",
        instances: tuple[int, int] = (2, 2),
        instance_type: str = "ml.m6i.large",
        **facts: str,
    ) -> int:
        """A new version, whose recorded answer is the good script's, with `facts` as its metadata; its number."""
        self.factor += 1
        run = f"run-{self.factor:g}"
        answer = {"predictions": [self.factor * 1, self.factor * 2]}
        facts = {"approval": "automatic", "metric": "auc", "challenger": "0.7", "champion": "0.6", "commit": "0" * 40,
                 "serving_instance_type": instance_type, "serving_minimum_instances": str(instances[0]),
                 "serving_maximum_instances": str(instances[1]), "lineage": "none",
                 "sample_request": self._put(f"bundles/{GROUP}/{run}/sample_request.json", REQUEST.encode()),
                 "sample_answer": self._put(f"evaluation/{GROUP}/{run}/sample_answer.json",
                                            json.dumps(answer).encode())} | facts  # fmt: skip
        url = self._put(f"training/{GROUP}/{run}/output/model.tar.gz", packed(self.factor, script, OF_THE_PLATFORM))
        made = self.at.client("sagemaker").create_model_package(
            ModelPackageGroupName=GROUP, ModelApprovalStatus=status, CustomerMetadataProperties=facts,
            InferenceSpecification={"Containers": [{"Image": IMAGE, "ModelDataUrl": url}],
                                    "SupportedContentTypes": ["application/json"],
                                    "SupportedResponseMIMETypes": ["application/json"]})  # fmt: skip
        return int(made["ModelPackageArn"].rpartition("/")[2])

    def package(self, version: int) -> dict[str, Any]:
        where = f"arn:aws:sagemaker:us-east-1:000000000000:model-package/{GROUP}/{version}"
        return dict(self.at.client("sagemaker").describe_model_package(ModelPackageName=where))

    def decide(self, version: int, status: str, reason: str = "by hand") -> None:
        self.at.client("sagemaker").update_model_package(
            ModelPackageArn=self.package(version)["ModelPackageArn"], ModelApprovalStatus=status,
            ApprovalDescription=reason)  # fmt: skip

    def live(self, environment: str = "production") -> int:
        """The version that the endpoint's own model says it runs; 0 without an endpoint in service."""
        sagemaker, name = self.at.client("sagemaker"), f"{GROUP}-{environment}"
        if not sagemaker.list_endpoints(NameContains=name, StatusEquals="InService")["Endpoints"]:
            return 0
        config = sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"]
        (variant,) = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
        model = sagemaker.describe_model(ModelName=variant["ModelName"])
        return int(model["PrimaryContainer"]["Environment"]["MODEL_PACKAGE_ARN"].rpartition("/")[2])

    def rests(self) -> bool:
        """Whether no reconciler runs."""
        states = self.at.client("stepfunctions")
        machines = [self.reconciler(name) for name in ("Staging", "Production")]
        return not any(states.list_executions(stateMachineArn=arn, statusFilter="RUNNING")["executions"]
                       for arn in machines)  # fmt: skip

    def reconciler(self, environment: str) -> str:
        """An environment's state machine, as its stack puts it out."""
        found = self.at.client("cloudformation").describe_stacks(StackName=f"FlightDelay-Release-{environment}")
        outputs = {one["OutputKey"]: one["OutputValue"] for one in found["Stacks"][0]["Outputs"]}
        return str(outputs["Reconciler"])

    def parameters(self, environment: str = "production") -> dict[str, str]:
        """What the serving stack was told last."""
        name = f"FlightDelay-Serving-{environment.capitalize()}"
        (stack,) = self.at.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
        return {one["ParameterKey"]: one["ParameterValue"] for one in stack["Parameters"]}

    def targets(self) -> list[dict[str, Any]]:
        """What scales."""
        scaling = self.at.client("application-autoscaling")
        return list(scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"])

    def endpoint(self) -> dict[str, Any]:
        """Production's."""
        return dict(self.at.client("sagemaker").describe_endpoint(EndpointName=f"{GROUP}-production"))

    def url(self) -> str:
        """Where production answers over plain HTTP."""
        tags = self.at.client("sagemaker").list_tags(ResourceArn=self.endpoint()["EndpointArn"])["Tags"]
        return next(str(tag["Value"]) for tag in tags if tag["Key"] == "rehearsal:url")

    def settle(self, version: int, status: str) -> None:
        """Wait until that version is live everywhere, has that status, and nothing runs any more."""
        everywhere = ("staging", "production")
        until(lambda: self.package(version)["ModelApprovalStatus"] == status
              and all(self.live(environment) == version for environment in everywhere)
              and self.rests(), self._everything)  # fmt: skip

    def rejected(self, version: int) -> str:
        """Wait until a version was rejected and nothing runs any more; why."""
        until(lambda: self.package(version)["ModelApprovalStatus"] == "Rejected" and self.rests(), self._everything)
        return str(self.package(version)["ApprovalDescription"])

    def _everything(self) -> str:
        found = self.at.client("sagemaker").list_model_packages(ModelPackageGroupName=GROUP)
        packages = [self.package(row["ModelPackageVersion"]) for row in found["ModelPackageSummaryList"]]
        told = [(one["ModelPackageVersion"], one["ModelApprovalStatus"], one.get("ApprovalDescription"))
                for one in packages]  # fmt: skip
        return f"live: {self.live('staging')}, {self.live()}; versions: {told}"

    def _put(self, key: str, content: bytes) -> str:
        s3 = self.at.client("s3")
        (bucket,) = [one["Name"] for one in s3.list_buckets()["Buckets"] if "artifacts" in one["Name"]]
        s3.put_object(Bucket=bucket, Key=key, Body=content)
        return f"s3://{bucket}/{key}"


def patient(
    assembly: Assembly,
    target: Path,
    *,
    slowest_seconds: float = 60,
    startup_seconds: int | None = None,
    bake_seconds: int | None = None,
) -> Path:
    """The assembly with another limit on latency, for a minute lasts half a second, on a machine with other tests;
    with an own limit on the time that a server has to answer /ping (SageMaker takes 60 seconds at least); and with
    own bakes where a rollout has some."""
    shutil.copytree(assembly.path, target)
    for environment in ("Staging", "Production"):
        template = target / f"FlightDelay-Serving-{environment}.template.json"
        content = json.loads(template.read_text())
        for found in content["Resources"].values():
            properties = found.get("Properties", {})
            if properties.get("MetricName") == "ModelLatency":
                properties["Threshold"] = slowest_seconds * 1_000_000
            if startup_seconds and found["Type"] == "AWS::SageMaker::EndpointConfig":
                (variant,) = properties["ProductionVariants"]
                variant["ContainerStartupHealthCheckTimeoutInSeconds"] = startup_seconds
            if bake_seconds and found["Type"] == "AWS::SageMaker::Endpoint":
                policy = properties["DeploymentConfig"]["BlueGreenUpdatePolicy"]
                if policy["TrafficRoutingConfiguration"]["WaitIntervalInSeconds"]:
                    policy["TrafficRoutingConfiguration"]["WaitIntervalInSeconds"] = bake_seconds
        template.write_text(json.dumps(content))
    return target
