"""Least privilege, as the templates state it."""

from __future__ import annotations

import json

import pytest

from stacks.every_resource import BY_ACTION
from tests.conftest import Assembly
from tests.rehearsal.iam_reference import reference
from tests.stacks import policies

ELSEWHERE = {"codepipeline:PutJobSuccessResult", "cloudwatch:GetMetricData"}
"""Granted in other configurations: a source that is not CodeCommit has a doorbell, a shadow is compared."""

EACH_MODEL = pytest.mark.parametrize(
    ("stack", "slug"), [("BikeDemand-Training", "bike-demand"), ("FlightDelay-Training", "flight-delay")]
)


def test_no_action_is_a_wildcard(assembly: Assembly) -> None:
    wild = [statement for statement in policies.statements(assembly) if any("*" in act for act in statement.actions)]
    wild += [statement for statement in policies.of_endpoints(assembly) if any("*" in act for act in statement.actions)]
    assert wild == []


def test_endpoints_let_through_what_a_feature_job_may_do_and_nothing_else(assembly: Assembly) -> None:
    granted = policies.actions(assembly, "JobsFeatures")
    passing = {found.holder: set(found.actions) for found in policies.of_endpoints(assembly)}
    for api, endpoint in (("glue", "Glue"), ("kms", "Kms"), ("logs", "Logs"), ("cloudwatch", "Monitoring")):
        assert passing[endpoint] == {action for action in granted if action.startswith(f"{api}:")}, endpoint
    assert passing["Sts"] == {"sts:GetCallerIdentity"}


@pytest.mark.parametrize("action", BY_ACTION)
def test_aws_knows_no_resource_for_what_is_granted_on_every_one(assembly: Assembly, action: str) -> None:
    assert reference().complaints(action, ["*"], []) == []
    assert any(action in found.actions and "*" in found.resources for found in policies.statements(assembly)
               ) or action in ELSEWHERE, "a row that explains nothing"  # fmt: skip


def test_all_resources_are_granted_only_where_the_service_knows_none(assembly: Assembly) -> None:
    for statement in policies.statements(assembly):
        if "*" in statement.resources:
            assert set(statement.actions) <= BY_ACTION.keys(), statement


def test_no_role_has_a_managed_policy(assembly: Assembly) -> None:
    for name, role in assembly.resources("AWS::IAM::Role").items():
        assert "ManagedPolicyArns" not in role["Properties"], name


def test_roles_are_passed_by_name_and_to_one_service(assembly: Assembly) -> None:
    for statement in policies.statements(assembly):
        if "iam:PassRole" in statement.actions:
            assert statement.conditions["StringEquals"]["iam:PassedToService"], statement
            assert not any("*" in resource for resource in statement.resources), statement


def test_every_actor_has_its_own_role(assembly: Assembly) -> None:
    roles = assembly.resources("AWS::IAM::Role", "FlightDelay-Training")
    for actor in (
        "JobsFeatures",
        "JobsTraining",
        "JobsEvaluation",
        "RetrainRole",
        "DeliveryVerifyRole",
        "DeliveryRolesPipeline",
        "DeliveryRolesSource",
        "DeliveryRolesVerify",
        "DeliveryRolesRetrain",
    ):
        assert any(name.startswith(actor) for name in roles), actor  # fmt: skip


@pytest.mark.parametrize(("role", "foreign"), [
    ("JobsTraining", {"sagemaker:CreateEndpoint", "sagemaker:CreateModelPackage", "s3:DeleteObject", "iam:PassRole"}),
    ("JobsEvaluation", {"s3:DeleteObject", "sagemaker:CreateModelPackage", "iam:PassRole"}),
    ("JobsFeatures", {"sagemaker:CreateTrainingJob", "iam:PassRole", "glue:StartJobRun"}),
    ("DeliveryVerifyRole", {"states:StartExecution", "codecommit:GitPull", "sagemaker:CreateTrainingJob"}),
    ("RetrainRole", {"sagemaker:DeleteModelPackage", "cloudformation:UpdateStack", "sagemaker:CreateEndpoint"}),
    ("StartRetrainingRole", {"states:StartExecution", "s3:DeleteObject", "codecommit:GitPush"}),
])  # fmt: skip
def test_no_actor_does_its_neighbours_work(assembly: Assembly, role: str, foreign: set[str]) -> None:
    granted = policies.actions(assembly, role)
    assert granted
    assert not granted & foreign


def test_the_door_reads_no_data_but_what_it_wrote_itself(assembly: Assembly) -> None:
    about = {resource for found in policies.of(assembly, "StartRetrainingRole") for resource in found.resources
             if {"s3:GetObject", "s3:PutObject"} & set(found.actions)}  # fmt: skip
    (resource,) = about
    assert "Artifacts" in resource
    assert resource.rstrip('"]}').endswith("/source/routed.json")


@EACH_MODEL
def test_training_reads_features_and_not_raw_data_and_writes_models_only(
    assembly: Assembly, stack: str, slug: str
) -> None:
    written = [
        resource
        for statement in policies.of(assembly, "JobsTraining", stack)
        if "s3:PutObject" in statement.actions
        for resource in statement.resources
    ]
    assert len(written) == 1
    assert f"/training/{slug}/*" in written[0]
    read = [
        resource
        for statement in policies.of(assembly, "JobsTraining", stack)
        if "s3:GetObject" in statement.actions
        for resource in statement.resources
    ]
    assert not any("/raw/" in resource for resource in read)


@EACH_MODEL
@pytest.mark.parametrize(("action", "minutes"), [("sagemaker:CreateTrainingJob", 360),
                                                 ("sagemaker:CreateProcessingJob", 120)])  # fmt: skip
def test_jobs_are_created_within_the_guardrails_only(
    assembly: Assembly, stack: str, slug: str, action: str, minutes: int
) -> None:
    (statement,) = [found for found in policies.of(assembly, "RetrainRole", stack) if action in found.actions]
    assert "ml.m6i.large" in statement.conditions["ForAllValues:StringEquals"]["sagemaker:InstanceTypes"]
    assert statement.conditions["Null"]["sagemaker:InstanceTypes"] == "false"
    assert statement.conditions["NumericLessThanEquals"] == {"sagemaker:MaxRuntimeInSeconds": str(minutes * 60)}
    assert statement.conditions["Bool"] == {"sagemaker:NetworkIsolation": "true"}
    assert "Key" in json.dumps(statement.conditions["StringEquals"]["sagemaker:VolumeKmsKeyArn"])


@EACH_MODEL
def test_retraining_proposes_versions_and_never_approves(assembly: Assembly, stack: str, slug: str) -> None:
    (statement,) = [found for found in policies.of(assembly, "RetrainRole", stack)
                    if "sagemaker:CreateModelPackage" in found.actions]  # fmt: skip
    allowed = statement.conditions["StringEquals"]["sagemaker:ModelApprovalStatus"]
    assert sorted(allowed) == ["PendingManualApproval", "Rejected"]
    (statement,) = [found for found in policies.of(assembly, "RetrainRole", stack)
                    if "sagemaker:UpdateModelPackage" in found.actions]  # fmt: skip
    assert statement.conditions == {"StringEquals": {"sagemaker:ModelApprovalStatus": "Rejected"}}


@EACH_MODEL
def test_jobs_may_pull_the_framework_image_and_no_other(assembly: Assembly, stack: str, slug: str) -> None:
    for role in ("JobsTraining", "JobsEvaluation"):
        (statement,) = [found for found in policies.of(assembly, role, stack) if "ecr:BatchGetImage" in found.actions]
        (resource,) = statement.resources
        assert "repository/sagemaker-xgboost" in resource
