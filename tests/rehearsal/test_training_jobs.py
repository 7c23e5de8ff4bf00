"""Training jobs: the container contract around a real script, through boto3."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from botocore.exceptions import ClientError

from rehearsal.sagemaker.training import TrainingJobs
from rehearsal.service import Caller, Params, Permission
from tests.rehearsal.loopback import ACCOUNT, REGION, Loopback, serve
from tests.rehearsal.waiting import until

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:3.2-0"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/training"
TRAIN = """
import json, os, sys
from pathlib import Path
import xgboost
model = Path(os.environ["SM_MODEL_DIR"])
train = Path(os.environ["SM_CHANNEL_TRAIN"])
rows = sorted(str(path.relative_to(train)) for path in train.rglob("*.csv"))
model.joinpath("seen.json").write_text(json.dumps({"argv": sys.argv[1:], "rows": rows, "cwd": os.getcwd(),
    "home": os.environ["HOME"], "keys": sorted(os.environ)}))
Path(os.environ["SM_OUTPUT_DATA_DIR"], "plot.txt").write_text("a plot")
print("auc=0.61;")
print("auc=0.74;")
"""


class SageMaker(TrainingJobs):
    """The service with training jobs only, and a short grace."""

    name = "sagemaker"
    grace: ClassVar[float] = 1.0

    def permissions(self, operation: str, params: Params, caller: Caller) -> list[Permission]:
        return list(self.PERMISSIONS[operation](params, caller))


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Loopback]:
    with serve(SageMaker, tmp_path=tmp_path) as running:
        running.client("s3").create_bucket(Bucket="training")
        yield running


def _source(cloud: Loopback, script: str, folder: str) -> str:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        entry = tarfile.TarInfo("pushline_entry.py")
        entry.size = len(script.encode())
        archive.addfile(entry, io.BytesIO(script.encode()))
    cloud.client("s3").put_object(Bucket="training", Key=f"{folder}/code/sourcedir.tar.gz", Body=held.getvalue())
    return f"s3://training/{folder}/code/"


def _channel(name: str, uri: str) -> dict[str, Any]:
    return {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}}


def _request(cloud: Loopback, script: str, **changes: Any) -> dict[str, Any]:
    folder = cloud.state_dir.name
    cloud.client("s3").put_object(Bucket="training", Key=f"{folder}/train/a/part-0.csv", Body=b"1,2\n")
    hyperparameters = {
        "num_round": "200",
        "eta": "0.1",
        "sagemaker_program": "pushline_entry.py",
        "sagemaker_submit_directory": "/opt/ml/input/data/code/sourcedir.tar.gz",
    }
    return {
        "TrainingJobName": "flight-delay-1",
        "RoleArn": ROLE,
        "HyperParameters": hyperparameters,
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "auc", "Regex": r"auc=([0-9.]+);"}],
        },
        "InputDataConfig": [
            _channel("train", f"s3://training/{folder}/train/"),
            _channel("code", _source(cloud, script, folder)),
        ],
        "OutputDataConfig": {"S3OutputPath": f"s3://training/{folder}/out"},
        "ResourceConfig": {"InstanceType": "ml.m6i.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **changes,
    }


def _ended(cloud: Loopback, name: str = "flight-delay-1") -> dict[str, Any]:
    def look() -> Any:
        job = cloud.client("sagemaker").describe_training_job(TrainingJobName=name)
        return None if job["TrainingJobStatus"] in ("InProgress", "Stopping") else job

    return dict(until(look, f"{name} still runs"))


def _log(cloud: Loopback) -> list[str]:
    [lines] = [stream.lines for (group, _), stream in cloud.streams.items() if group == "/aws/sagemaker/TrainingJobs"]
    return lines


def _states(cloud: Loopback) -> list[str]:
    """The states that events told."""
    return [event["detail"]["TrainingJobStatus"] for event in cloud.events]


def _wait_for_line(cloud: Loopback, line: str) -> None:
    until(lambda: any(line in stream.lines for stream in cloud.streams.values()), f"no line {line!r}")


def _archive(cloud: Loopback, uri: str) -> tarfile.TarFile:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    body = cloud.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    return tarfile.open(fileobj=io.BytesIO(body))


def test_a_job_trains_under_the_container_contract(cloud: Loopback) -> None:
    cloud.client("sagemaker").create_training_job(**_request(cloud, TRAIN, EnableNetworkIsolation=True))
    job = _ended(cloud)
    assert job["TrainingJobStatus"] == "Completed", job
    with _archive(cloud, job["ModelArtifacts"]["S3ModelArtifacts"]) as model:
        seen = json.load(model.extractfile("seen.json") or io.BytesIO())
    assert seen["argv"] == ["--eta", "0.1", "--num_round", "200"]
    assert seen["rows"] == ["a/part-0.csv"]
    assert seen["cwd"].endswith("/opt/ml/code")
    assert "AWS_SECRET_ACCESS_KEY" not in seen["keys"], "network isolation leaves a container no credentials"
    with _archive(cloud, job["ModelArtifacts"]["S3ModelArtifacts"].replace("model.tar", "output.tar")) as output:
        assert output.getnames() == ["plot.txt"]
    assert [(m["MetricName"], round(m["Value"], 2)) for m in job["FinalMetricDataList"]] == [("auc", 0.74)]
    assert [t["Status"] for t in job["SecondaryStatusTransitions"]] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    assert "auc=0.74;" in _log(cloud)
    # The event, and the end of the job's folder, come after the status.
    until(lambda: _states(cloud)[-1:] == ["Completed"], lambda: f"{_states(cloud)}")
    assert _states(cloud) == ["InProgress", "InProgress", "InProgress", "Completed"]
    assert {p.action for _, p in cloud.authorized} == {
        "ecr:GetAuthorizationToken",
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetDownloadUrlForLayer",
    }
    until(lambda: not list(cloud.state_dir.glob("sagemaker/training-jobs/*/*/*")), "the job's folder is there still")


def test_a_failing_script_fails_the_job_and_names_the_error(cloud: Loopback) -> None:
    cloud.client("sagemaker").create_training_job(**_request(cloud, "raise ValueError('no rows')"))
    job = _ended(cloud)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Failed", "Failed")
    assert job["FailureReason"].startswith(
        'AlgorithmError: ExecuteUserScriptError:\nExitCode 1\nErrorMessage "ValueError: no rows"\nCommand "'
    )
    assert job["FailureReason"].endswith('--eta 0.1 --num_round 200", exit code: 1')
    assert "ValueError: no rows" in _log(cloud)


def test_a_job_past_its_maximum_runtime_is_stopped_and_keeps_its_model(cloud: Loopback) -> None:
    script = "import os, pathlib, time\npathlib.Path(os.environ['SM_MODEL_DIR'], 'm').write_text('x')\ntime.sleep(3600)"
    cloud.client("sagemaker").create_training_job(
        **_request(cloud, script, StoppingCondition={"MaxRuntimeInSeconds": 15})
    )
    job = _ended(cloud)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    with _archive(cloud, job["ModelArtifacts"]["S3ModelArtifacts"]) as model:
        assert model.getnames() == ["m"]


def test_a_stopped_job_ends_with_everything_it_started(cloud: Loopback) -> None:
    script = (
        "import signal, subprocess, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'])\n"
        "print('pid', child.pid)\nprint('ready')\ntime.sleep(3600)"
    )
    sagemaker = cloud.client("sagemaker")
    sagemaker.create_training_job(**_request(cloud, script))
    _wait_for_line(cloud, "ready")
    sagemaker.stop_training_job(TrainingJobName="flight-delay-1")
    job = _ended(cloud)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    pid = next(line for line in _log(cloud) if line.startswith("pid ")).split()[1]
    until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])


def test_checkpoints_come_from_s3_and_go_back(cloud: Loopback) -> None:
    folder = cloud.state_dir.name
    cloud.client("s3").put_object(Bucket="training", Key=f"{folder}/checkpoints/round", Body=b"7")
    script = (
        "import sys, pathlib\nat = pathlib.Path(sys.argv[sys.argv.index('--checkpoints') + 1], 'round')\n"
        "at.write_text(str(int(at.read_text()) + 1))"
    )
    request = _request(
        cloud,
        script,
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120},
        CheckpointConfig={"S3Uri": f"s3://training/{folder}/checkpoints"},
    )
    request["HyperParameters"]["checkpoints"] = "/opt/ml/checkpoints"
    cloud.client("sagemaker").create_training_job(**request)
    assert _ended(cloud)["TrainingJobStatus"] == "Completed"
    kept = cloud.client("s3").get_object(Bucket="training", Key=f"{folder}/checkpoints/round")["Body"].read()
    assert kept == b"8"


def test_a_channel_without_objects_fails_the_job(cloud: Loopback) -> None:
    request = _request(cloud, "")
    request["InputDataConfig"][0] = _channel("train", "s3://training/nothing/")
    cloud.client("sagemaker").create_training_job(**request)
    assert 'No S3 objects found under S3 URL "s3://training/nothing/"' in _ended(cloud)["FailureReason"]


def _changed(request: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split(".")
    place = request
    for parent in parents:
        place = place[parent]
    place[last] = value
    return request


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("ResourceConfig.InstanceCount", 2, "several instances"),
        ("AlgorithmSpecification.TrainingInputMode", "Pipe", "input mode Pipe"),
        ("AlgorithmSpecification.TrainingImage", "me/custom:1", "me/custom:1 is not rehearsed"),
        ("AlgorithmSpecification.AlgorithmName", "mine", "AlgorithmName"),
        ("TrainingJobName", "under_score", "must match"),
        ("TrainingJobName", "x" * 64, "must match"),
        ("RoleArn", "training-role-without-an-arn", "no role's ARN"),
        ("HyperParameters", {}, "sagemaker_program"),
        ("EnableManagedSpotTraining", True, "MaxWaitTimeInSeconds"),
    ],
)
def test_what_aws_rejects_or_is_not_rehearsed_is_refused(cloud: Loopback, path: str, value: Any, message: str) -> None:
    with pytest.raises(ClientError, match=message):
        cloud.client("sagemaker").create_training_job(**_changed(_request(cloud, ""), path, value))
    assert cloud.client("sagemaker").list_training_jobs()["TrainingJobSummaries"] == []


def test_a_name_is_used_once(cloud: Loopback) -> None:
    sagemaker = cloud.client("sagemaker")
    request = _request(cloud, "")
    sagemaker.create_training_job(**request)
    with pytest.raises(sagemaker.exceptions.ResourceInUse):
        sagemaker.create_training_job(**request)
    _ended(cloud)
    [listed] = sagemaker.list_training_jobs(StatusEquals="Completed")["TrainingJobSummaries"]
    assert listed["TrainingJobName"] == "flight-delay-1"


def test_a_job_that_was_running_when_the_rehearsal_died_is_failed(cloud: Loopback) -> None:
    cloud.client("sagemaker").create_training_job(**_request(cloud, "import time; print('ready'); time.sleep(60)"))
    _wait_for_line(cloud, "ready")
    cloud.service("sagemaker").stop()
    SageMaker(cloud).start()
    assert "lost when the rehearsal stopped" in _ended(cloud)["FailureReason"]


def test_creation_is_checked_with_every_condition_key() -> None:
    params = {
        "TrainingJobName": "j",
        "RoleArn": ROLE,
        "EnableNetworkIsolation": True,
        "ResourceConfig": {"InstanceType": "ml.m6i.large", "VolumeKmsKeyId": "arn:aws:kms:us-east-1:1:key/k"},
        "OutputDataConfig": {"S3OutputPath": "s3://b"},
        "StoppingCondition": {"MaxRuntimeInSeconds": 5},
        "VpcConfig": {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
        "Tags": [{"Key": "a", "Value": "b"}],
    }
    create, role, tags = TrainingJobs.PERMISSIONS["CreateTrainingJob"](params, Caller(ACCOUNT, REGION))
    assert (create.action, create.resource) == (
        "sagemaker:CreateTrainingJob",
        f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/j",
    )
    assert create.context["sagemaker:InstanceTypes"] == ["ml.m6i.large"]
    assert create.context["sagemaker:NetworkIsolation"] == "true"
    assert create.context["sagemaker:MaxRuntimeInSeconds"] == 5
    assert create.context["sagemaker:VolumeKmsKeyArn"].endswith("key/k")
    assert create.context["sagemaker:VpcSubnets"] == ["subnet-1"]
    assert (role.action, role.resource, role.context) == (
        "iam:PassRole",
        ROLE,
        {"iam:PassedToService": "sagemaker.amazonaws.com"},
    )
    assert tags.action == "sagemaker:AddTags"
