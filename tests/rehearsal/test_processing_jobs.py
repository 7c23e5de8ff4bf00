"""Processing jobs: an entrypoint under the container contract, through boto3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from botocore.exceptions import ClientError

from rehearsal.sagemaker.processing import ProcessingJobs
from rehearsal.service import Caller, Params, Permission
from tests.rehearsal.loopback import ACCOUNT, REGION, Loopback, serve
from tests.rehearsal.waiting import until

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:3.2-0"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/evaluation"
BASH = ["/bin/bash", "-c"]


class SageMaker(ProcessingJobs):
    """The service with processing jobs only, and a short grace."""

    name = "sagemaker"
    grace: ClassVar[float] = 1.0

    def permissions(self, operation: str, params: Params, caller: Caller) -> list[Permission]:
        return list(self.PERMISSIONS[operation](params, caller))


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Loopback]:
    with serve(SageMaker, tmp_path=tmp_path / "with a space") as running:
        running.client("s3").create_bucket(Bucket="processing")
        yield running


def _input(name: str, uri: str) -> dict[str, Any]:
    return {
        "InputName": name,
        "S3Input": {
            "S3Uri": uri,
            "LocalPath": f"/opt/ml/processing/input/{name}",
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
        },
    }


def _request(cloud: Loopback, script: str, **changes: Any) -> dict[str, Any]:
    folder = cloud.state_dir.parent.name
    put = cloud.client("s3").put_object
    put(Bucket="processing", Key=f"{folder}/holdout/a/part-0.parquet", Body=b"rows")
    put(Bucket="processing", Key=f"{folder}/job/output/model.tar.gz", Body=b"model")
    output = {
        "OutputName": "evaluation",
        "S3Output": {
            "S3Uri": f"s3://processing/{folder}/evaluation",
            "LocalPath": "/opt/ml/processing/output",
            "S3UploadMode": "EndOfJob",
        },
    }
    return {
        "ProcessingJobName": "flight-delay-1",
        "RoleArn": ROLE,
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": [*BASH, script]},
        "ProcessingInputs": [
            _input("holdout", f"s3://processing/{folder}/holdout/"),
            _input("challenger", f"s3://processing/{folder}/job/output/model.tar.gz"),
        ],
        "ProcessingOutputConfig": {"Outputs": [output]},
        "ProcessingResources": {
            "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m6i.large", "VolumeSizeInGB": 10}
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **changes,
    }


def _ended(cloud: Loopback) -> dict[str, Any]:
    def look() -> Any:
        job = cloud.client("sagemaker").describe_processing_job(ProcessingJobName="flight-delay-1")
        return None if job["ProcessingJobStatus"] in ("InProgress", "Stopping") else job

    return dict(until(look, "the job still runs"))


def _log(cloud: Loopback) -> list[str]:
    return [
        line
        for (group, _), stream in cloud.streams.items()
        if group == "/aws/sagemaker/ProcessingJobs"
        for line in stream.lines
    ]


def test_a_job_reads_its_inputs_and_uploads_its_outputs(cloud: Loopback) -> None:
    script = (
        "cd /opt/ml/processing && cat input/holdout/a/part-0.parquet input/challenger/model.tar.gz "
        "> output/both.txt && mkdir output/plots && echo png > output/plots/roc.png && "
        "python3 -c 'import sys, xgboost; print(sys.prefix)' && cat /opt/ml/config/processingjobconfig.json && "
        "echo $MODEL && echo fine > /opt/ml/output/message"
    )
    cloud.client("sagemaker").create_processing_job(**_request(cloud, script, Environment={"MODEL": "flight"}))
    job = _ended(cloud)
    assert job["ProcessingJobStatus"] == "Completed", (job, _log(cloud))
    assert job["ExitMessage"] == "fine\n"
    prefix = f"{cloud.state_dir.parent.name}/evaluation/"
    listed = cloud.client("s3").list_objects_v2(Bucket="processing", Prefix=prefix)["Contents"]
    assert [item["Key"].removeprefix(prefix) for item in listed] == ["both.txt", "plots/roc.png"]
    both = cloud.client("s3").get_object(Bucket="processing", Key=f"{prefix}both.txt")["Body"].read()
    assert both == b"rowsmodel"
    assert "xgboost-3.2-0" in _log(cloud)[0]
    assert '"ProcessingJobName": "flight-delay-1"' in _log(cloud)[1]
    assert _log(cloud)[-1].endswith("flight")
    until(lambda: len(cloud.events) >= 2, "its end was not told")  # told after it is kept
    assert [event["detail"]["ProcessingJobStatus"] for event in cloud.events] == ["InProgress", "Completed"]


def test_a_failing_entrypoint_fails_the_job_with_its_exit_code(cloud: Loopback) -> None:
    cloud.client("sagemaker").create_processing_job(**_request(cloud, "echo no holdout; exit 3"))
    job = _ended(cloud)
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"].endswith("exit code: 3")
    assert _log(cloud) == ["no holdout"]


def test_a_job_can_be_stopped(cloud: Loopback) -> None:
    sagemaker = cloud.client("sagemaker")
    sagemaker.create_processing_job(**_request(cloud, "sleep 3600", StoppingCondition={"MaxRuntimeInSeconds": 3600}))
    sagemaker.stop_processing_job(ProcessingJobName="flight-delay-1")
    assert _ended(cloud)["ProcessingJobStatus"] == "Stopped"
    [listed] = sagemaker.list_processing_jobs()["ProcessingJobSummaries"]
    assert listed["ProcessingJobStatus"] == "Stopped"


def test_a_job_past_its_maximum_runtime_is_ended(cloud: Loopback) -> None:
    cloud.client("sagemaker").create_processing_job(
        **_request(cloud, "sleep 3600", StoppingCondition={"MaxRuntimeInSeconds": 1})
    )
    assert _ended(cloud)["ProcessingJobStatus"] == "Stopped"


def test_paths_outside_of_opt_ml_and_continuous_uploads_are_refused(cloud: Loopback) -> None:
    sagemaker = cloud.client("sagemaker")
    request = _request(cloud, "true")
    request["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3UploadMode"] = "Continuous"
    with pytest.raises(ClientError, match="EndOfJob"):
        sagemaker.create_processing_job(**request)
    request = _request(cloud, "true")
    request["ProcessingInputs"][0]["S3Input"]["LocalPath"] = "/data"
    sagemaker.create_processing_job(**request)
    assert "/data is not under /opt/ml" in _ended(cloud)["FailureReason"]


def test_creation_is_checked_with_every_condition_key() -> None:
    params = {
        "ProcessingJobName": "j",
        "RoleArn": ROLE,
        "StoppingCondition": {"MaxRuntimeInSeconds": 5},
        "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m6i.large"}},
        "NetworkConfig": {"EnableNetworkIsolation": True},
    }
    create, role = ProcessingJobs.PERMISSIONS["CreateProcessingJob"](params, Caller(ACCOUNT, REGION))
    assert create.resource.endswith(":processing-job/j")
    assert create.context["sagemaker:InstanceTypes"] == ["ml.m6i.large"]
    assert create.context["sagemaker:NetworkIsolation"] == "true"
    assert create.context["sagemaker:MaxRuntimeInSeconds"] == 5
    assert role.action == "iam:PassRole"
