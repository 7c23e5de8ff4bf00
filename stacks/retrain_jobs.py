"""The three jobs of a retraining, as the arguments that the state machine gives to Glue and SageMaker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from contract import Model
from stacks.instance_types import has_local_storage
from stacks.states import expression, jsonata_list

EVALUATION_VOLUME_GB = 30
OPT_ML = "/opt/ml"
_UNPACK_AND_EVALUATE = (
    f"mkdir -p {OPT_ML}/processing/code"
    f" && tar -xzf {OPT_ML}/processing/input/code/sourcedir.tar.gz -C {OPT_ML}/processing/code"
    f" && exec python3 {OPT_ML}/processing/code/pushline_entry.py evaluate"
)
_BUNDLE = "$substringBefore($request.bundle.uri, 'sourcedir.tar.gz')"


def instance_volume(instance_types: Iterable[str]) -> str:
    """JSONata: `$volume(type, gb)` is the volume's part of a resource config, its key where the type takes one."""
    local = [instance_type for instance_type in instance_types if has_local_storage(instance_type)]
    key = "{'VolumeSizeInGB': $gb, 'VolumeKmsKeyId': '${Key}'}"
    if not local:
        return f"$volume := function($type, $gb) {{ {key} }}"
    return f"$volume := function($type, $gb) {{ $type in {jsonata_list(local)} ? {{'VolumeSizeInGB': $gb}} : {key} }}"


def feature_run(model: Model) -> dict[str, Any]:
    """One run of the feature job: this commit's script on the raw data up to `as_of`."""
    platform = {
        "--scriptLocation": "$request.features.script_uri", "--extra-py-files": "$request.features.modules_uri",
        "--raw": f"'s3://${{Data}}/raw/{model.name}/'",
        "--output": f"'s3://${{Data}}/features/{model.slug}/' & $run & '/'", "--as_of": "$request.as_of",
    }  # fmt: skip
    given = ", ".join(f"'{key}': {value}" for key, value in platform.items())
    return {
        "JobName": "${FeatureJob}",
        "WorkerType": expression("$request.features.worker_type"),
        "NumberOfWorkers": expression("$request.features.workers"),
        "Timeout": expression("$request.features.timeout_minutes"),
        "Arguments": expression(f"$merge([$request.features.arguments, {{{given}}}])"),
    }


def training_job(model: Model, volume: str, vpc: bool) -> dict[str, Any]:
    """The training job, named as the run; without network, so its code comes in by a channel."""
    train = f"'s3://${{Data}}/features/{model.slug}/' & $run & '/train/'"
    return {
        "TrainingJobName": expression("$run"),
        "RoleArn": "${TrainingRole}",
        "AlgorithmSpecification": {"TrainingImage": "${Image}", "TrainingInputMode": "File",
                                   "MetricDefinitions": expression(_METRICS)},
        "HyperParameters": expression(f"$merge([$request.training.hyperparameters, {{{_toolkit()}}}])"),
        "InputDataConfig": [_channel("train", train, "application/x-parquet"),
                            _channel("code", _BUNDLE, "application/gzip")],
        "OutputDataConfig": {"S3OutputPath": f"s3://${{Artifacts}}/training/{model.slug}", "KmsKeyId": "${Key}"},
        "ResourceConfig": expression(_training_resources(volume)),
        "EnableManagedSpotTraining": expression("$request.training.spot"),
        "StoppingCondition": expression(_STOPPING),
        "EnableNetworkIsolation": True, **vpc_config(vpc),
        # The image's toolkit runs `pip install .`; without network pip can't fetch what it would build that with.
        # pip reads 0 as "no isolation": https://github.com/pypa/pip/issues/5735
        "Environment": {"PIP_NO_BUILD_ISOLATION": "0"},
        "Tags": _tags(model),
    }  # fmt: skip


_METRICS = """(
  $names := $distinct($append([$request.evaluation.metric], $request.evaluation.guards.metric));
  [$map($names, function($name) { {'Name': $name, 'Regex': '(?:^|\\\\s)' & $name & '=([0-9.eE+-]+);'} })]
)"""
"""`train.py` prints `name=value;`: SageMaker keeps what the gate will ask for."""
_STOPPING = """$merge([
  {'MaxRuntimeInSeconds': $request.training.max_runtime_seconds},
  $request.training.spot ? {'MaxWaitTimeInSeconds': $request.training.max_wait_seconds} : {}
])"""


def _training_resources(volume: str) -> str:
    return (f"({volume}; $asked := $request.training; $merge([$volume($asked.instance_type, $asked.volume_gb), "
            "{'InstanceType': $asked.instance_type, 'InstanceCount': $asked.instance_count}]))")  # fmt: skip


def _toolkit() -> str:
    """The hyperparameters by which the image's toolkit finds the program."""
    values = {
        "sagemaker_program": "'pushline_entry.py'",
        "sagemaker_submit_directory": f"'{OPT_ML}/input/data/code/sourcedir.tar.gz'",
        "sagemaker_region": "'${Region}'", "sagemaker_job_name": "$run", "sagemaker_container_log_level": "'20'",
    }  # fmt: skip
    return ", ".join(f"'{key}': {value}" for key, value in values.items())


def _channel(name: str, uri: str, content_type: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": expression(uri), "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "ContentType": content_type, "DataSource": {"S3DataSource": source}}


def evaluation_job(model: Model, volume: str, vpc: bool) -> dict[str, Any]:
    """The evaluation of challenger and champion on the same holdout, as a processing job named as the run."""
    output = expression(f"'s3://${{Artifacts}}/evaluation/{model.slug}/' & $run & '/'")
    local = f"{OPT_ML}/processing/output"
    stored = {"S3Uri": output, "LocalPath": local, "S3UploadMode": "EndOfJob"}
    return {
        "ProcessingJobName": expression("$run"),
        "RoleArn": "${EvaluationRole}",
        "AppSpecification": {"ImageUri": "${Image}", "ContainerEntrypoint": ["/bin/bash", "-c", _UNPACK_AND_EVALUATE]},
        "ProcessingInputs": expression(_evaluation_inputs(model)),
        "ProcessingOutputConfig": {"KmsKeyId": "${Key}",
                                   "Outputs": [{"OutputName": "evaluation", "S3Output": stored}]},
        "ProcessingResources": {"ClusterConfig": expression(_evaluation_resources(volume))},
        "StoppingCondition": {"MaxRuntimeInSeconds": expression("$request.evaluation.max_runtime_seconds")},
        "NetworkConfig": {"EnableNetworkIsolation": True, **vpc_config(vpc)},
        "Tags": _tags(model),
    }  # fmt: skip


def _evaluation_resources(volume: str) -> str:
    return (f"({volume}; $type := $request.evaluation.instance_type; $merge([$volume($type, {EVALUATION_VOLUME_GB}), "
            "{'InstanceType': $type, 'InstanceCount': 1}]))")  # fmt: skip


def _evaluation_inputs(model: Model) -> str:
    inputs = {"code": _BUNDLE, "challenger": "$model_data", "sample": "$request.sample_request",
              "holdout": f"'s3://${{Data}}/features/{model.slug}/' & $run & '/holdout/'"}  # fmt: skip
    always = ", ".join(processing_input(name, uri) for name, uri in inputs.items())
    return f"$append([{always}], $champion = null ? [] : [{processing_input('champion', '$champion.model_data')}])"


def processing_input(name: str, uri: str, *, more: str = "", folder: str = "") -> str:
    """JSONata: an input of a processing job; `more` and `folder` are what its name and place go on with."""
    how = "'S3DataType': 'S3Prefix', 'S3InputMode': 'File', 'S3DataDistributionType': 'FullyReplicated'"
    return (f"{{'InputName': '{name}'{more}, 'S3Input': {{'S3Uri': {uri}, {how}, "
            f"'LocalPath': '{OPT_ML}/processing/input/{name}'{folder}}}}}")  # fmt: skip


def vpc_config(vpc: bool) -> dict[str, Any]:
    """CloudFormation fills in lists: the ids with `","` between them."""
    return {"VpcConfig": {"Subnets": ["${Subnets}"], "SecurityGroupIds": ["${SecurityGroups}"]}} if vpc else {}


def _tags(model: Model) -> list[dict[str, str]]:
    return [{"Key": "pushline:model", "Value": model.name}, {"Key": "pushline:environment", "Value": "training"}]
