"""Processing jobs: an entrypoint of the request under the container contract, its inputs and outputs through S3.

The state machine that created the job reads what it left under its outputs' addresses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from rehearsal.child import Ended
from rehearsal.sagemaker.container import SAGEMAKER, Container, image_name, resource_config
from rehearsal.sagemaker.jobs import (
    ENDED,
    JobFailed,
    Jobs,
    check_instance,
    creation,
    on_job,
    refuse,
    stamp,
)
from rehearsal.sagemaker.listing import page
from rehearsal.sagemaker.tags import Permissions
from rehearsal.service import Caller, Params, Permission, ServiceError, Unsupported, arn
from rehearsal.transfer import Transfer, place
from rehearsal.vpc import vpc_context

KIND = "sagemaker/processing-job"
GROUP = "/aws/sagemaker/ProcessingJobs"
DAY = 86400
_TIMES = ("CreationTime", "LastModifiedTime", "ProcessingStartTime", "ProcessingEndTime")
_PRIVATE = ("Arn", "Process", "Caller")
_KEPT = (
    "ProcessingInputs",
    "ProcessingOutputConfig",
    "ProcessingJobName",
    "ProcessingResources",
    "StoppingCondition",
    "AppSpecification",
    "Environment",
    "NetworkConfig",
    "RoleArn",
)
Document = dict[str, Any]


def _arn(caller: Caller, name: str) -> str:
    return arn("sagemaker", caller, f"processing-job/{name}")


def _creates(params: Params, caller: Caller) -> list[Permission]:
    cluster, network = params["ProcessingResources"]["ClusterConfig"], params.get("NetworkConfig") or {}
    context = {
        "sagemaker:InstanceTypes": [cluster["InstanceType"]] if "InstanceType" in cluster else [],
        "sagemaker:NetworkIsolation": str(network.get("EnableNetworkIsolation", False)).lower(),
        "sagemaker:InterContainerTrafficEncryption": "false",
        "sagemaker:MaxRuntimeInSeconds": (params.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds", DAY),
        **vpc_context(network.get("VpcConfig")),
    }
    keys = {
        "sagemaker:VolumeKmsKey": cluster.get("VolumeKmsKeyId"),
        "sagemaker:OutputKmsKey": (params.get("ProcessingOutputConfig") or {}).get("KmsKeyId"),
    }
    for name, key in keys.items():
        if key:
            context[f"{name}Arn" if key.startswith("arn:") else name] = key
    return creation("sagemaker:CreateProcessingJob", _arn(caller, params["ProcessingJobName"]), params, context)


class ProcessingJobs(Jobs):
    """CreateProcessingJob, DescribeProcessingJob, ListProcessingJobs, StopProcessingJob."""

    PERMISSIONS: ClassVar[Permissions] = {
        "CreateProcessingJob": _creates,
        "DescribeProcessingJob": on_job("DescribeProcessingJob", "processing-job", "ProcessingJobName"),
        "StopProcessingJob": on_job("StopProcessingJob", "processing-job", "ProcessingJobName"),
        "ListProcessingJobs": lambda *_: [Permission("sagemaker:ListProcessingJobs")],
    }

    def start(self) -> None:
        self._lost(KIND, "ProcessingJobStatus", self._fail_processing)
        super().start()

    def create_processing_job(self, caller: Caller, params: Params) -> Params:
        _check(params)
        job = _new(params, caller)
        vpc = (params.get("NetworkConfig") or {}).get("VpcConfig")
        self._accept(KIND, job, "ProcessingJobName", caller, params, vpc)
        folder = self._job_folder("processing-jobs", caller, params["ProcessingJobName"])
        self._in_background(
            lambda: self._attempt(
                job["Arn"], lambda: self._process(job, folder, caller), self._fail_processing, folder
            ),
            f"processing {params['ProcessingJobName']}",
        )
        return {"ProcessingJobArn": job["Arn"]}

    def describe_processing_job(self, caller: Caller, params: Params) -> Params:
        job = self._found(KIND, _arn(caller, params["ProcessingJobName"]))
        return {key: value for key, value in job.items() if key not in _PRIVATE}

    def list_processing_jobs(self, caller: Caller, params: Params) -> Params:
        mine = [
            job
            for key, job in self.cloud.store.list(KIND)
            if key.startswith(_arn(caller, ""))
            and job["ProcessingJobStatus"] == params.get("StatusEquals", job["ProcessingJobStatus"])
        ]
        jobs, token = page(mine, params, name="ProcessingJobName", key="ProcessingJobArn", status="ProcessingJobStatus")
        members = (
            "ProcessingJobName",
            "ProcessingJobArn",
            "CreationTime",
            "ProcessingEndTime",
            "LastModifiedTime",
            "ProcessingJobStatus",
            "FailureReason",
            "ExitMessage",
        )
        return {
            "ProcessingJobSummaries": [{m: job[m] for m in members if m in job} for job in jobs],
            "NextToken": token,
        }

    def stop_processing_job(self, caller: Caller, params: Params) -> Params:
        key = _arn(caller, params["ProcessingJobName"])
        job = self._found(KIND, key)
        if job["ProcessingJobStatus"] != "InProgress":
            raise ServiceError(
                "ValidationException",
                f"The request was rejected because the processing job is in status {job['ProcessingJobStatus']}",
            )
        self._move(key, ProcessingJobStatus="Stopping")
        self._children.stop(key)
        return {}

    # -- the job's life -------------------------------------------------------------------------------

    def _process(self, job: Document, folder: Path, caller: Caller) -> None:
        with closing(Container(folder, image_name(job["AppSpecification"]["ImageUri"]))) as container:
            self._process_in(container, job, caller)

    def _process_in(self, container: Container, job: Document, caller: Caller) -> None:
        s3 = self._s3(job["RoleArn"], caller, "SageMaker")
        self._pull(job["AppSpecification"]["ImageUri"], job["RoleArn"], caller)
        self._prepare(job, container, s3)
        self._move(job["Arn"], ProcessingStartTime=stamp())
        ended = self._run_entrypoint(job, container, caller)
        if self._children.closing:
            return
        if ended.reason == "exited" and ended.code == 0:
            self._send_outputs(job, container, s3)
        self._conclude(job, ended, container.message("message"))

    def _prepare(self, job: Document, container: Container, s3: Transfer) -> None:
        cluster = job["ProcessingResources"]["ClusterConfig"]
        container.write_config(
            "config", processingjobconfig=_config(job), resourceconfig=resource_config(cluster["InstanceType"])
        )
        (container.ml / "output").mkdir(exist_ok=True)
        for item in job.get("ProcessingInputs", []):
            source = item["S3Input"]
            self._download(s3, source["S3Uri"], container.path(source["LocalPath"]), job["RoleArn"])
        for output in _outputs(job):
            container.path(output["LocalPath"]).mkdir(parents=True, exist_ok=True)

    def _run_entrypoint(self, job: Document, container: Container, caller: Caller) -> Ended:
        isolated = (job.get("NetworkConfig") or {}).get("EnableNetworkIsolation", False)
        app, name = job["AppSpecification"], job["ProcessingJobName"]
        credentials = (
            {}
            if isolated
            else self.cloud.environment(job["RoleArn"], SAGEMAKER, region=caller.region, session="SageMaker")
        )
        variables = {
            "PROCESSING_JOB_NAME": name,
            "AWS_REGION": caller.region,
            "AWS_DEFAULT_REGION": caller.region,
            **credentials,
            **job.get("Environment", {}),
        }
        log = self.cloud.logs(
            GROUP, f"{name}/algo-1-{round(time.time() * 1000)}", caller, role=job["RoleArn"], by=SAGEMAKER
        )
        words = [*app["ContainerEntrypoint"], *app.get("ContainerArguments", [])]
        try:
            return self._run(
                KIND,
                job["Arn"],
                container,
                container.command(words, isolated),
                cwd=container.ml,
                env=container.environment(variables),
                out=log.write,
                limit=job["StoppingCondition"]["MaxRuntimeInSeconds"],
            )
        except FileNotFoundError as error:
            raise JobFailed(f"ClientError: the container's entrypoint {words[0]!r} was not found ({error})") from None

    def _send_outputs(self, job: Document, container: Container, s3: Transfer) -> None:
        key = job.get("ProcessingOutputConfig", {}).get("KmsKeyId")
        for output in _outputs(job):
            s3.upload_folder(container.path(output["LocalPath"]), place(output["S3Uri"]), key)

    def _conclude(self, job: Document, ended: Ended, message: str) -> None:
        left: Document = {"ExitMessage": message} if message else {}
        if ended.reason == "exited" and ended.code:
            code = ended.code if ended.code > 0 else 128 - ended.code
            left["FailureReason"] = f"AlgorithmError: See job logs for more information, exit code: {code}"
        elif ended.reason == "timeout":
            left["FailureReason"] = "ClientError: the job reached its MaxRuntimeInSeconds"
        status = {"exited": "Failed" if ended.code else "Completed", "timeout": "Stopped", "stopped": "Stopped"}
        self._move(job["Arn"], ProcessingJobStatus=status[ended.reason], **left)

    def _fail_processing(self, key: str, reason: str) -> None:
        self._move(key, ProcessingJobStatus="Failed", FailureReason=reason[:1024])

    def _move(self, key: str, **values: Any) -> None:
        """Change the job, and tell the event bus."""

        def change(job: Document) -> None:
            job.update(values, LastModifiedTime=stamp())
            if job["ProcessingJobStatus"] in ENDED:
                job.update(ProcessingEndTime=job["LastModifiedTime"], Process=None)

        job = self.cloud.store.update(KIND, key, change)
        detail = {name: value for name, value in job.items() if name not in _PRIVATE}
        times: Document = {name: round(job[name] * 1000) for name in _TIMES if name in job}
        self.cloud.emit(
            "aws.sagemaker",
            "SageMaker Processing Job State Change",
            {**detail, **times},
            [key],
            Caller(**job["Caller"]),
        )


def _check(params: Params) -> None:
    """Refuse what is not rehearsed."""
    refuse(params, "CreateProcessingJob", "ExperimentConfig")
    cluster, app = params["ProcessingResources"]["ClusterConfig"], params["AppSpecification"]
    refuse(params.get("NetworkConfig") or {}, "NetworkConfig", "EnableInterContainerTrafficEncryption")
    refuse(cluster, "ClusterConfig", "InstancePreferences")
    check_instance(cluster)
    if not app.get("ContainerEntrypoint"):
        raise Unsupported("a processing job needs ContainerEntrypoint: the image's own is not rehearsed")
    image_name(app["ImageUri"])
    for item in params.get("ProcessingInputs", []):
        _check_input(item)
    for output in (params.get("ProcessingOutputConfig") or {}).get("Outputs", []):
        _check_output(output)


def _check_input(item: Params) -> None:
    refuse(item, f"input {item['InputName']}", "AppManaged", "DatasetDefinition")
    source = item.get("S3Input") or {}
    if (
        source.get("S3DataType") != "S3Prefix"
        or source.get("S3InputMode", "File") != "File"
        or source.get("S3CompressionType", "None") != "None"
        or not source.get("LocalPath")
    ):
        raise Unsupported(
            f"input {item['InputName']}: only an S3Input with S3DataType S3Prefix, S3InputMode File, no "
            "compression and a LocalPath is rehearsed"
        )


def _check_output(output: Params) -> None:
    refuse(output, f"output {output['OutputName']}", "AppManaged", "FeatureStoreOutput")
    target = output.get("S3Output") or {}
    if target.get("S3UploadMode") != "EndOfJob" or not target.get("LocalPath"):
        raise Unsupported(
            f"output {output['OutputName']}: only an S3Output with S3UploadMode EndOfJob and a LocalPath is rehearsed"
        )


def _new(params: Params, caller: Caller) -> Document:
    now, name = stamp(), params["ProcessingJobName"]
    return {
        **{k: params[k] for k in _KEPT if params.get(k) is not None},
        "StoppingCondition": params.get("StoppingCondition") or {"MaxRuntimeInSeconds": DAY},
        "Arn": _arn(caller, name),
        "ProcessingJobArn": _arn(caller, name),
        "ProcessingJobStatus": "InProgress",
        "CreationTime": now,
        "LastModifiedTime": now,
        "Caller": {"account": caller.account, "region": caller.region},
    }


def _outputs(job: Document) -> Iterator[Params]:
    for output in job.get("ProcessingOutputConfig", {}).get("Outputs", []):
        yield output["S3Output"]


def _config(job: Document) -> Document:
    """processingjobconfig.json: the request, as the container reads it."""
    config = {key: job[key] for key in _KEPT if key in job}
    return {**config, "ProcessingJobArn": job["Arn"]}
