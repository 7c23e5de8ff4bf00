"""SageMaker Model Monitor's own schedules for production's endpoint, where model.yaml asks for them.

No baseline goes with them: ours is in a format of our own, and theirs takes a job of AWS's analyzer for every version.
So the analyzer computes statistics and metrics of each day and finds no violations; drift is told by our own job.
"""

from __future__ import annotations

from typing import Any

from aws_cdk import Fn
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from config import Guardrails
from contract import Model
from contract.monitoring import Monitor
from stacks.deployment import production
from stacks.environment_stack import ServingEnvironmentStack
from stacks.foundation_stack import FoundationStack
from stacks.images import PrebuiltImage
from stacks.native_monitoring_role import INSTANCE_TYPE, native_role

ANALYZERS = {
    "af-south-1": "875698925577",
    "ap-east-1": "001633400207",
    "ap-northeast-1": "574779866223",
    "ap-northeast-2": "709848358524",
    "ap-northeast-3": "990339680094",
    "ap-south-1": "126357580389",
    "ap-southeast-1": "245545462676",
    "ap-southeast-2": "563025443158",
    "ap-southeast-3": "669540362728",
    "ca-central-1": "536280801234",
    "cn-north-1": "453000072557",
    "cn-northwest-1": "453252182341",
    "eu-central-1": "048819808253",
    "eu-central-2": "590183933784",
    "eu-north-1": "895015795356",
    "eu-south-1": "933208885752",
    "eu-south-2": "437450045455",
    "eu-west-1": "468650794304",
    "eu-west-2": "749857270468",
    "eu-west-3": "680080141114",
    "il-central-1": "843974653677",
    "me-central-1": "588750061953",
    "me-south-1": "607024016150",
    "sa-east-1": "539772159869",
    "us-east-1": "156813124566",
    "us-east-2": "777275614652",
    "us-isof-east-1": "853188333426",
    "us-isof-south-1": "467912361380",
    "us-west-1": "890145073186",
    "us-west-2": "159807026194",
}
"""Region to account of the registries of sagemaker-model-monitor-analyzer, as SageMaker's SDK lists them."""
LABELS = "labels/"
"""Where people or programs put what was true, `labels/<slug>/yyyy/mm/dd/hh/*.jsonl` of the data bucket."""
DAILY = "cron(0 0 ? * * *)"
LABELS_FROM, LABELS_TO = "-P2D", "-P1D"
"""The day that is judged is the one before the last: labels have a day to land."""
THRESHOLD = 0.5
VOLUME_GB = 30
_LOCAL = "/opt/ml/processing"
_PROBLEMS = {"binary_classification": "BinaryClassification", "multiclass_classification": "MulticlassClassification",
             "regression": "Regression"}  # fmt: skip
_METRICS = {"publish_cloudwatch_metrics": "Enabled"}


class NativeMonitoring(Construct):
    """A job definition and a schedule for each monitor that model.yaml switches on, under one role."""

    def __init__(self, scope: Construct, id: str, *, model: Model, guardrails: Guardrails,
                 foundation: FoundationStack, live: ServingEnvironmentStack) -> None:  # fmt: skip
        super().__init__(scope, id)
        self._model, self._foundation = model, foundation
        self._image = PrebuiltImage(self, "Analyzer", registries=ANALYZERS,
                                    repository="sagemaker-model-monitor-analyzer")  # fmt: skip
        self._role = native_role(self, model=model, guardrails=guardrails, foundation=foundation, live=live,
                                 image=self._image, labels=f"{LABELS}{model.slug}/*")  # fmt: skip
        for monitor in model.monitoring.native:
            self._schedule(monitor)

    def _schedule(self, monitor: Monitor) -> None:
        title = "".join(part.capitalize() for part in monitor.split("_"))
        definition = self._data_quality() if monitor == "data_quality" else self._model_quality()
        # CloudFormation names the definition, whose every change replaces it; Ref is its ARN.
        name = Fn.select(1, Fn.split("/", definition.ref))
        daily = sagemaker.CfnMonitoringSchedule.ScheduleConfigProperty(schedule_expression=DAILY)
        config = sagemaker.CfnMonitoringSchedule.MonitoringScheduleConfigProperty(
            monitoring_type=title, monitoring_job_definition_name=name, schedule_config=daily
        )
        sagemaker.CfnMonitoringSchedule(
            self, f"{title}Schedule", monitoring_schedule_config=config,
            monitoring_schedule_name=f"{self._model.slug}-{monitor.replace('_', '-')}")  # fmt: skip

    def _data_quality(self) -> sagemaker.CfnDataQualityJobDefinition:
        return sagemaker.CfnDataQualityJobDefinition(
            self, "DataQuality", role_arn=self._role.role_arn,
            data_quality_app_specification={"imageUri": self._image.uri, "environment": _METRICS},
            data_quality_job_input={"endpointInput": self._endpoint()},
            data_quality_job_output_config=self._output("data-quality"), **self._job())  # fmt: skip

    def _model_quality(self) -> sagemaker.CfnModelQualityJobDefinition:
        problem = self._model.monitoring.problem(self._model.evaluation.metric)
        binary = problem == "binary_classification"
        # The first column of an answer in CSV: what the endpoint says of the one row that was asked.
        answer = ({"probabilityAttribute": "0", "probabilityThresholdAttribute": THRESHOLD} if binary
                  else {"inferenceAttribute": "0"})  # fmt: skip
        asked = {**self._endpoint(), **answer, "startTimeOffset": LABELS_FROM, "endTimeOffset": LABELS_TO}
        truth = {"s3Uri": f"s3://{self._foundation.data.bucket_name}/{LABELS}{self._model.slug}"}
        return sagemaker.CfnModelQualityJobDefinition(
            self, "ModelQuality", role_arn=self._role.role_arn,
            model_quality_app_specification={"imageUri": self._image.uri, "environment": _METRICS,
                                             "problemType": _PROBLEMS[str(problem)]},
            model_quality_job_input={"endpointInput": asked, "groundTruthS3Input": truth},
            model_quality_job_output_config=self._output("model-quality"), **self._job())  # fmt: skip

    def _endpoint(self) -> dict[str, Any]:
        return {"endpointName": production(self._model).endpoint, "localPath": f"{_LOCAL}/input/endpoint"}

    def _output(self, monitor: str) -> dict[str, Any]:
        uri = f"s3://{self._foundation.artifacts.bucket_name}/monitoring/{self._model.slug}/native/{monitor}"
        stored = {"s3Uri": uri, "localPath": f"{_LOCAL}/output", "s3UploadMode": "EndOfJob"}
        return {"kmsKeyId": self._foundation.key.key_arn, "monitoringOutputs": [{"s3Output": stored}]}

    def _job(self) -> dict[str, Any]:
        """What the platform's own monitoring job has too: time, key and network."""
        network, minutes = self._foundation.network, self._model.evaluation.max_runtime_minutes
        cluster = {"instanceCount": 1, "instanceType": INSTANCE_TYPE, "volumeSizeInGb": VOLUME_GB,
                   "volumeKmsKeyId": self._foundation.key.key_arn}  # fmt: skip
        inside = ({"vpcConfig": {"subnets": list(network.subnets), "securityGroupIds": list(network.security_groups)}}
                  if network else {})  # fmt: skip
        return {"job_resources": {"clusterConfig": cluster},
                "network_config": {"enableNetworkIsolation": True, **inside},
                "stopping_condition": {"maxRuntimeInSeconds": minutes * 60}}  # fmt: skip
