"""What CreateTrainingJob may ask for: its permissions, what AWS rejects and what is not rehearsed."""

from __future__ import annotations

from rehearsal.sagemaker.container import image_name
from rehearsal.sagemaker.jobs import check_instance, creation, refuse
from rehearsal.service import Caller, Params, Permission, ServiceError, Unsupported, arn
from rehearsal.vpc import vpc_context

_REFUSED = (
    "DebugHookConfig",
    "DebugRuleConfigurations",
    "TensorBoardOutputConfig",
    "ExperimentConfig",
    "ProfilerRuleConfigurations",
    "RetryStrategy",
    "RemoteDebugConfig",
    "InfraCheckConfig",
    "SessionChainingConfig",
    "ServerlessJobConfig",
    "MlflowConfig",
    "ModelPackageConfig",
    "EnableInterContainerTrafficEncryption",
)


def job_arn(caller: Caller, name: str) -> str:
    return arn("sagemaker", caller, f"training-job/{name}")


def creation_checks(params: Params, caller: Caller) -> list[Permission]:
    resources, output = params.get("ResourceConfig", {}), params["OutputDataConfig"]
    context = {
        "sagemaker:InstanceTypes": [resources["InstanceType"]] if "InstanceType" in resources else [],
        "sagemaker:NetworkIsolation": str(params.get("EnableNetworkIsolation", False)).lower(),
        "sagemaker:InterContainerTrafficEncryption": "false",
        "sagemaker:MaxRuntimeInSeconds": params.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", 86400),
        **vpc_context(params.get("VpcConfig")),
    }
    keys = {"sagemaker:VolumeKmsKey": resources.get("VolumeKmsKeyId"), "sagemaker:OutputKmsKey": output.get("KmsKeyId")}
    for name, key in keys.items():
        if key:
            context[f"{name}Arn" if key.startswith("arn:") else name] = key
    return creation("sagemaker:CreateTrainingJob", job_arn(caller, params["TrainingJobName"]), params, context)


def check_request(params: Params) -> None:
    """Refuse what is not rehearsed, and reject what AWS rejects."""
    refuse(params, "CreateTrainingJob", *_REFUSED)
    if missing := [name for name in ("ResourceConfig", "StoppingCondition") if name not in params]:
        raise ServiceError("ValidationException", f"CreateTrainingJob needs {' and '.join(missing)}")
    algorithm, resources = params["AlgorithmSpecification"], params["ResourceConfig"]
    refuse(
        algorithm,
        "AlgorithmSpecification",
        "AlgorithmName",
        "ContainerEntrypoint",
        "ContainerArguments",
        "TrainingImageConfig",
    )
    refuse(
        resources,
        "ResourceConfig",
        "InstanceGroups",
        "KeepAlivePeriodInSeconds",
        "TrainingPlanArn",
        "InstancePlacementConfig",
        "InstancePreferences",
    )
    refuse(
        params["OutputDataConfig"],
        "OutputDataConfig",
        *(("CompressionType",) if params["OutputDataConfig"].get("CompressionType") == "NONE" else ()),
    )
    check_instance(resources)
    if algorithm["TrainingInputMode"] != "File":
        raise Unsupported(f"input mode {algorithm['TrainingInputMode']} is not rehearsed; use File")
    image_name(algorithm.get("TrainingImage", ""))
    for channel in params.get("InputDataConfig", []):
        _check_channel(channel)
    if "sagemaker_program" not in params.get("HyperParameters", {}):
        raise Unsupported(
            "without the hyperparameter sagemaker_program the image runs its built-in algorithm, "
            "which is not rehearsed; give a script"
        )
    _check_spot(params)


def _check_channel(channel: Params) -> None:
    name, source = channel["ChannelName"], channel["DataSource"].get("S3DataSource")
    if not source or source["S3DataType"] != "S3Prefix":
        raise Unsupported(f"channel {name}: only an S3DataSource with S3DataType S3Prefix is rehearsed")
    if channel.get("InputMode", "File") != "File":
        raise Unsupported(f"channel {name}: input mode {channel['InputMode']} is not rehearsed; use File")
    refuse(source, f"channel {name}", "AttributeNames", "InstanceGroupNames", "ModelAccessConfig", "HubAccessConfig")
    refuse(
        {k: v for k, v in channel.items() if v != "None"},
        f"channel {name}",
        "CompressionType",
        "RecordWrapperType",
        "ShuffleConfig",
    )


def _check_spot(params: Params) -> None:
    stopping = params["StoppingCondition"]
    wait, run = stopping.get("MaxWaitTimeInSeconds"), stopping.get("MaxRuntimeInSeconds", 86400)
    if not params.get("EnableManagedSpotTraining"):
        if wait is not None:
            raise ServiceError(
                "ValidationException",
                "MaxWaitTimeInSeconds is only for managed spot training (EnableManagedSpotTraining)",
            )
    elif wait is None or wait < run:
        raise ServiceError(
            "ValidationException",
            f"Invalid MaxWaitTimeInSeconds. It must be present and be greater "
            f"than or equal to MaxRuntimeInSeconds ({run})",
        )
