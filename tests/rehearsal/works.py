"""The work of the platform, as calls that a role would make, and which roles have it as their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

ACCOUNT, REGION = "000000000000", "us-east-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/any"
JOB = {
    "RoleArn": ROLE,
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    "ResourceConfig": {"InstanceType": "ml.m6i.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
    "AlgorithmSpecification": {"TrainingImage": "none", "TrainingInputMode": "File"},
    "OutputDataConfig": {"S3OutputPath": "s3://none/none"},
}


@dataclass(frozen=True)
class Work:
    """One call; `owners` are regular expressions on `stack/logical id` of the roles whose work it is."""

    name: str
    service: str
    method: str
    parameters: Mapping[str, Any]
    owners: Iterable[str] = field(default_factory=tuple)


def sagemaker(resource: str) -> str:
    return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{resource}"


def works(data: str, artifacts: str, found: Mapping[str, str]) -> list[Work]:
    """Every work on the model flight_delay; `found` gives physical ids by `stack/beginning of the logical id`."""
    retraining, reconciler = (
        found["FlightDelay-Training/Retraining"],
        found["FlightDelay-Release-Production/Reconciler"],
    )
    live, code = "flight-delay-production", "bundles/flight-delay/x/sourcedir.tar.gz"
    return [
        Work("read raw data", "s3", "get_object", {"Bucket": data, "Key": "raw/flight_delay/dt=2013-01-01/flights.csv"},
             ("FlightDelay-Training/JobsFeatures.*",)),
        Work("change raw data", "s3", "put_object", {"Bucket": data, "Key": "raw/flight_delay/dt=2013-01-01/x.csv"}),
        Work("delete raw data", "s3", "delete_object", {"Bucket": data, "Key": "raw/flight_delay/dt=2013-01-01/x.csv"}),
        Work("read training features", "s3", "get_object",
             {"Bucket": data, "Key": "features/flight-delay/run/train/part.parquet"},
             ("FlightDelay-Training/Jobs(Features|Training|Evaluation).*", "FlightDelay-Monitoring/JobRole.*")),
        Work("write a model", "s3", "put_object",
             {"Bucket": artifacts, "Key": "training/flight-delay/run/output/model.tar.gz"},
             ("FlightDelay-Training/JobsTraining.*",)),
        Work("write an evaluation", "s3", "put_object",
             {"Bucket": artifacts, "Key": "evaluation/flight-delay/run/evaluation.json"},
             ("FlightDelay-Training/JobsEvaluation.*",)),
        Work("replace verified code", "s3", "put_object", {"Bucket": artifacts, "Key": code},
             ("FlightDelay-Training/DeliveryVerifyRole.*",)),
        Work("read the branch", "codecommit", "get_branch", {"repositoryName": "pushline", "branchName": "main"},
             ("[A-Za-z]+-Training/DeliveryRolesSource.*", "Pushline-Repository/StartRetrainingRole.*")),
        Work("start a retraining", "codepipeline", "start_pipeline_execution", {"name": "pushline-flight-delay"},
             ("Pushline-Repository/StartRetrainingRole.*",)),
        Work("start a build", "codebuild", "start_build",
             {"projectName": found["FlightDelay-Training/DeliveryBuild"]},
             ("FlightDelay-Training/DeliveryRolesVerify.*",)),
        Work("start the retraining state machine", "stepfunctions", "start_execution", {"stateMachineArn": retraining},
             ("FlightDelay-Training/DeliveryRolesRetrain.*",)),
        Work("start a feature job", "glue", "start_job_run", {"JobName": "flight-delay-features"},
             ("FlightDelay-Training/RetrainRole.*", "FlightDelay-Monitoring/MonitorRole.*")),
        Work("start a training job", "sagemaker", "create_training_job", {"TrainingJobName": "flight-delay-x", **JOB},
             ("FlightDelay-Training/RetrainRole.*",)),
        Work("register a version", "sagemaker", "create_model_package",
             {"ModelPackageGroupName": "flight-delay", "ModelApprovalStatus": "PendingManualApproval"},
             ("FlightDelay-Training/RetrainRole.*",)),
        Work("register a version as approved", "sagemaker", "create_model_package",
             {"ModelPackageGroupName": "flight-delay", "ModelApprovalStatus": "Approved"}),
        Work("approve a version", "sagemaker", "update_model_package",
             {"ModelPackageArn": sagemaker("model-package/flight-delay/1"), "ModelApprovalStatus": "Approved"},
             ("FlightDelay-Release-Staging/RolesReconciler.*",)),
        Work("reconcile production", "stepfunctions", "start_execution", {"stateMachineArn": reconciler},
             ("FlightDelay-Release-Production/(StartRole|.*Schedule).*",)),
        Work("update production's endpoint", "sagemaker", "update_endpoint",
             {"EndpointName": live, "EndpointConfigName": "any"},
             ("FlightDelay-Release-Production/RolesUpdate.*",)),
        Work("delete production's endpoint", "sagemaker", "delete_endpoint", {"EndpointName": live},
             ("FlightDelay-Release-Production/RolesUpdate.*",)),
        Work("ask production's endpoint", "sagemaker-runtime", "invoke_endpoint",
             {"EndpointName": live, "Body": b"1"},
             ("FlightDelay-Release-Production/RolesReconciler.*",)),
        Work("update a stack as whoever asks", "cloudformation", "update_stack",
             {"StackName": "FlightDelay-Serving-Production", "UsePreviousTemplate": True}),
        Work("give itself permissions", "iam", "put_role_policy",
             {"RoleName": "any", "PolicyName": "more", "PolicyDocument": "{}"}),
        Work("open the key", "kms", "put_key_policy",
             {"KeyId": found["Pushline-Foundation/Key"], "PolicyName": "default", "Policy": "{}"}),
    ]  # fmt: skip
