"""Training jobs: a script of the submitted source under the container contract, in the image's own interpreter.

The state machine that created the job reads what comes of it: `model.tar.gz` in S3 and the job's description.
"""

from __future__ import annotations

import re
import tarfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from rehearsal.child import Ended
from rehearsal.sagemaker.container import SAGEMAKER, Container, image_name, resource_config
from rehearsal.sagemaker.jobs import (
    ENDED,
    JobFailed,
    Jobs,
    on_job,
    refuse,
    stamp,
)
from rehearsal.sagemaker.listing import page
from rehearsal.sagemaker.tags import Permissions
from rehearsal.sagemaker.toolkit import ScriptMode, failure
from rehearsal.sagemaker.training_request import check_request, creation_checks, job_arn
from rehearsal.service import Caller, Params, Permission, ServiceError
from rehearsal.transfer import Transfer, place

KIND = "sagemaker/training-job"
GROUP = "/aws/sagemaker/TrainingJobs"
ARTIFACT = "model.tar.gz"
_MESSAGES = {
    "Starting": "Starting the training job",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Stopping": "Stopping the training job",
    "Uploading": "Uploading generated training model",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Resources released: the job reached its maximum runtime",
}
_TIMES = ("CreationTime", "LastModifiedTime", "TrainingStartTime", "TrainingEndTime")
_PRIVATE = ("Arn", "Process", "Caller", "StopRequested")
_KEPT = (
    "TrainingJobName",
    "HyperParameters",
    "AlgorithmSpecification",
    "RoleArn",
    "InputDataConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "VpcConfig",
    "StoppingCondition",
    "EnableNetworkIsolation",
    "EnableManagedSpotTraining",
    "CheckpointConfig",
    "ProfilerConfig",
    "Environment",
)
_EVENT = (
    "TrainingJobName",
    "TrainingJobArn",
    "TrainingJobStatus",
    "SecondaryStatus",
    "FailureReason",
    "HyperParameters",
    "AlgorithmSpecification",
    "RoleArn",
    "InputDataConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "StoppingCondition",
    "ModelArtifacts",
    "SecondaryStatusTransitions",
)
_ERROR = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt)\b.*")
_LAST_LINES = 5
"""What a script that names no error said last tells why it ended."""
Document = dict[str, Any]


class TrainingJobs(Jobs):
    """CreateTrainingJob, DescribeTrainingJob, ListTrainingJobs, StopTrainingJob."""

    PERMISSIONS: ClassVar[Permissions] = {
        "CreateTrainingJob": creation_checks,
        "DescribeTrainingJob": on_job("DescribeTrainingJob", "training-job", "TrainingJobName"),
        "StopTrainingJob": on_job("StopTrainingJob", "training-job", "TrainingJobName"),
        "ListTrainingJobs": lambda *_: [Permission("sagemaker:ListTrainingJobs")],
    }

    def start(self) -> None:
        self._lost(KIND, "TrainingJobStatus", self._fail_training)
        super().start()

    def create_training_job(self, caller: Caller, params: Params) -> Params:
        check_request(params)
        job = _new(params, caller)
        self._accept(KIND, job, "TrainingJobName", caller, params, params.get("VpcConfig"))
        folder = self._job_folder("training-jobs", caller, params["TrainingJobName"])
        self._in_background(
            lambda: self._attempt(job["Arn"], lambda: self._train(job, folder, caller), self._fail_training, folder),
            f"training {params['TrainingJobName']}",
        )
        return {"TrainingJobArn": job["Arn"]}

    def describe_training_job(self, caller: Caller, params: Params) -> Params:
        return _shown(self._found(KIND, job_arn(caller, params["TrainingJobName"])))

    def list_training_jobs(self, caller: Caller, params: Params) -> Params:
        refuse(params, "ListTrainingJobs", "WarmPoolStatusEquals", "TrainingPlanArnEquals")
        mine = [
            job
            for key, job in self.cloud.store.list(KIND)
            if key.startswith(job_arn(caller, ""))
            and job["TrainingJobStatus"] == params.get("StatusEquals", job["TrainingJobStatus"])
        ]
        jobs, token = page(mine, params, name="TrainingJobName", key="TrainingJobArn", status="TrainingJobStatus")
        members = (
            "TrainingJobName",
            "TrainingJobArn",
            "CreationTime",
            "TrainingEndTime",
            "LastModifiedTime",
            "TrainingJobStatus",
            "SecondaryStatus",
        )
        return {"TrainingJobSummaries": [{m: job[m] for m in members if m in job} for job in jobs], "NextToken": token}

    def stop_training_job(self, caller: Caller, params: Params) -> Params:
        key = job_arn(caller, params["TrainingJobName"])
        job = self._found(KIND, key)
        if job["TrainingJobStatus"] != "InProgress":
            raise ServiceError(
                "ValidationException",
                f"The request was rejected because the training job is in status {job['TrainingJobStatus']}",
            )
        self._turn(key, "Stopping", TrainingJobStatus="Stopping")
        self._children.stop(key)
        return {}

    # -- the job's life -------------------------------------------------------------------------------

    def _train(self, job: Document, folder: Path, caller: Caller) -> None:
        with closing(Container(folder, image_name(job["AlgorithmSpecification"]["TrainingImage"]))) as container:
            self._train_in(container, job, caller)

    def _train_in(self, container: Container, job: Document, caller: Caller) -> None:
        s3 = self._s3(job["RoleArn"], caller, "SageMaker")
        self._turn(job["Arn"], "Downloading")
        self._pull(job["AlgorithmSpecification"]["TrainingImage"], job["RoleArn"], caller)
        self._lay_out(job, container, s3)
        self._turn(job["Arn"], "Training", TrainingStartTime=stamp())
        metrics = Metrics(job["AlgorithmSpecification"].get("MetricDefinitions", []))
        ended, reason = self._run_script(job, container, caller, metrics)
        if self._children.closing:
            return
        self._upload(job, container, s3, completed=not reason)
        if reason:
            raise JobFailed(reason)
        self._finish(job["Arn"], ended, metrics)

    def _lay_out(self, job: Document, container: Container, s3: Transfer) -> None:
        """Fill the container's /opt/ml with configuration, data and checkpoints."""
        for folder in ("model", "output/data", "output/intermediate", "input/data"):
            (container.ml / folder).mkdir(parents=True, exist_ok=True)
        channels = {channel["ChannelName"]: _described(channel) for channel in job.get("InputDataConfig", [])}
        hyperparameters = {k: container.localize(v) for k, v in job.get("HyperParameters", {}).items()}
        container.write_config(
            "input/config",
            hyperparameters=hyperparameters,
            inputdataconfig=channels,
            resourceconfig=resource_config(job["ResourceConfig"]["InstanceType"]),
        )
        for channel in job.get("InputDataConfig", []):
            target = container.ml / "input" / "data" / channel["ChannelName"]
            self._download(s3, channel["DataSource"]["S3DataSource"]["S3Uri"], target, job["RoleArn"])
        if checkpoints := job.get("CheckpointConfig"):
            local = _checkpoints(container, checkpoints)
            local.mkdir(parents=True, exist_ok=True)
            s3.download_prefix(place(checkpoints["S3Uri"].rstrip("/") + "/"), local)

    def _run_script(self, job: Document, container: Container, caller: Caller, metrics: Metrics) -> tuple[Ended, str]:
        """How the script ended, and why the job failed if it did."""
        toolkit = ScriptMode(container, job["TrainingJobName"])
        toolkit.unpack()
        isolated = job.get("EnableNetworkIsolation", False)
        variables = {
            **_of_service(job, caller),
            **({} if isolated else self._credentials(job, caller)),
            **job.get("Environment", {}),
            **toolkit.variables(),
        }
        log = self.cloud.logs(
            GROUP,
            f"{job['TrainingJobName']}/algo-1-{round(time.time() * 1000)}",
            caller,
            role=job["RoleArn"],
            by=SAGEMAKER,
        )
        errors: list[str] = []
        last: deque[str] = deque(maxlen=_LAST_LINES)
        ended = self._run(
            KIND,
            job["Arn"],
            container,
            container.command(toolkit.command(), isolated),
            cwd=toolkit.code,
            env=container.environment(variables),
            out=_each(log.write, metrics.read, _collect(errors), last.append),
            limit=job["StoppingCondition"]["MaxRuntimeInSeconds"],
        )
        if ended.reason != "exited" or ended.code == 0:
            return ended, ""
        text = failure(ended.code, errors[-1] if errors else "\n".join(last), toolkit.command())
        (container.ml / "output" / "failure").write_text(text)
        return ended, f"AlgorithmError: {container.message('failure')}, exit code: 1"

    def _credentials(self, job: Document, caller: Caller) -> dict[str, str]:
        return self.cloud.environment(job["RoleArn"], SAGEMAKER, region=caller.region, session="SageMaker")

    def _upload(self, job: Document, container: Container, s3: Transfer, completed: bool) -> None:
        """Pack and send what the job leaves: the model (only of a script that did not fail), outputs, checkpoints."""
        if completed and job["TrainingJobStatus"] != "Stopping":
            self._turn(job["Arn"], "Uploading")
        output = job["OutputDataConfig"]
        target = place(output["S3OutputPath"]).child(job["TrainingJobName"]).child("output")
        packed = {"output.tar.gz": container.ml / "output" / "data"}
        if completed:
            packed[ARTIFACT] = container.ml / "model"
        for name, folder in packed.items():
            if any(folder.iterdir()):
                s3.upload([(_pack(folder, container.beside(name)), target.child(name))], output.get("KmsKeyId"))
        if checkpoints := job.get("CheckpointConfig"):
            s3.upload_folder(_checkpoints(container, checkpoints), place(checkpoints["S3Uri"]))

    def _finish(self, key: str, ended: Ended, metrics: Metrics) -> None:
        status = {"exited": "Completed", "timeout": "Stopped", "stopped": "Stopped"}[ended.reason]
        secondary = "MaxRuntimeExceeded" if ended.reason == "timeout" else status
        self._turn(key, secondary, TrainingJobStatus=status, FinalMetricDataList=metrics.final())

    def _fail_training(self, key: str, reason: str) -> None:
        self._turn(key, "Failed", TrainingJobStatus="Failed", FailureReason=reason[:1024])

    def _turn(self, key: str, secondary: str, **values: Any) -> None:
        """Enter the next status, and tell the event bus."""

        def change(job: Document) -> None:
            now, transitions = stamp(), job["SecondaryStatusTransitions"]
            transitions[-1]["EndTime"] = now
            transitions.append({"Status": secondary, "StartTime": now, "StatusMessage": _MESSAGES[secondary]})
            if job["TrainingJobStatus"] == "Stopping" and values.get("TrainingJobStatus") is None:
                secondary_status = job["SecondaryStatus"]
            else:
                secondary_status = secondary
            job.update(values, SecondaryStatus=secondary_status, LastModifiedTime=now)
            if job["TrainingJobStatus"] in ENDED:
                _close(job, now)

        job = self.cloud.store.update(KIND, key, change)
        caller = Caller(**job["Caller"])
        detail = {name: job[name] for name in _EVENT if name in job}
        times: Document = {name: round(job[name] * 1000) for name in _TIMES if name in job}
        self.cloud.emit("aws.sagemaker", "SageMaker Training Job State Change", {**detail, **times}, [key], caller)


class Metrics:
    """The job's metrics: the last value that each definition's expression finds in the log."""

    def __init__(self, definitions: list[dict[str, str]]) -> None:
        self._definitions = [(item["Name"], re.compile(item["Regex"])) for item in definitions]
        self._last: dict[str, tuple[float, float]] = {}

    def read(self, line: str) -> None:
        for name, expression in self._definitions:
            for found in expression.finditer(line):
                try:
                    self._last[name] = float(found[1]), stamp()
                except (ValueError, IndexError):
                    continue

    def final(self) -> list[Document]:
        """The metrics in DescribeTrainingJob's form; what is no finite number has no place in it."""
        return [
            {"MetricName": name, "Value": value, "Timestamp": at}
            for name, (value, at) in self._last.items()
            if abs(value) < float("inf")
        ]


def _new(params: Params, caller: Caller) -> Document:
    now, name = stamp(), params["TrainingJobName"]
    model = place(params["OutputDataConfig"]["S3OutputPath"]).child(name).child("output").child(ARTIFACT).uri
    stopping = {"MaxRuntimeInSeconds": 86400, **params["StoppingCondition"]}
    return {
        **{k: params[k] for k in _KEPT if params.get(k) is not None},
        "StoppingCondition": stopping,
        "Arn": job_arn(caller, name),
        "TrainingJobArn": job_arn(caller, name),
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Starting",
        "ModelArtifacts": {"S3ModelArtifacts": model},
        "CreationTime": now,
        "LastModifiedTime": now,
        "SecondaryStatusTransitions": [
            {"Status": "Starting", "StartTime": now, "StatusMessage": _MESSAGES["Starting"]}
        ],
        "Caller": {"account": caller.account, "region": caller.region},
    }


def _shown(job: Document) -> Document:
    return {key: value for key, value in job.items() if key not in _PRIVATE}


def _close(job: Document, now: float) -> None:
    job["SecondaryStatusTransitions"][-1]["EndTime"] = job["TrainingEndTime"] = now
    job["Process"] = None
    seconds = max(1, round(now - job["TrainingStartTime"])) if "TrainingStartTime" in job else 0
    job["TrainingTimeInSeconds"] = job["BillableTimeInSeconds"] = seconds


def _described(channel: Params) -> Document:
    """A channel's entry in inputdataconfig.json."""
    source = channel["DataSource"]["S3DataSource"]
    kind = {"ContentType": channel["ContentType"]} if channel.get("ContentType") else {}
    return {
        "TrainingInputMode": "File",
        "RecordWrapperType": "None",
        "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
        **kind,
    }


def _of_service(job: Document, caller: Caller) -> dict[str, str]:
    return {
        "TRAINING_JOB_NAME": job["TrainingJobName"],
        "TRAINING_JOB_ARN": job["Arn"],
        "AWS_REGION": caller.region,
        "AWS_DEFAULT_REGION": caller.region,
    }


def _checkpoints(container: Container, config: Params) -> Path:
    return container.path(config.get("LocalPath") or "/opt/ml/checkpoints")


def _pack(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz", compresslevel=6) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, arcname=path.name)
    return target


def _each(*sinks: Callable[[str], None]) -> Callable[[str], None]:
    def write(line: str) -> None:
        for sink in sinks:
            sink(line)

    return write


def _collect(errors: list[str]) -> Callable[[str], None]:
    return lambda line: errors.append(line) if _ERROR.match(line) else None
