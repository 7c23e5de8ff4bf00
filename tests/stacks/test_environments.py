"""What staging and production have of their own, and what crosses where they have accounts of their own."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from config import load_settings
from tests.conftest import ACCOUNTS, Assembly

SHARED = {"training": "Pushline-Foundation", "staging": "Pushline-Staging", "production": "Pushline-Production"}


@pytest.mark.parametrize("environment", SHARED)
def test_every_environment_has_one_key_that_rotates_and_a_topic_under_it(assembly: Assembly, environment: str) -> None:
    (key_id,) = assembly.resources("AWS::KMS::Key", SHARED[environment])
    topic = assembly.one("AWS::SNS::Topic", SHARED[environment])

    assert assembly.one("AWS::KMS::Key", SHARED[environment])["EnableKeyRotation"] is True
    assert key_id in json.dumps(topic["KmsMasterKeyId"])


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_what_endpoints_write_is_private_encrypted_with_their_own_key_and_kept_for_a_while(
    assembly: Assembly, environment: str
) -> None:
    (key_id,) = assembly.resources("AWS::KMS::Key", SHARED[environment])
    buckets = assembly.resources("AWS::S3::Bucket", SHARED[environment])
    (bucket,) = [found["Properties"] for name, found in buckets.items() if name.startswith("Traffic")]
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    kept = {rule["Prefix"]: rule["ExpirationInDays"] for rule in bucket["LifecycleConfiguration"]["Rules"]
            if "Prefix" in rule}  # fmt: skip

    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert key_id in json.dumps(rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"])
    assert set(kept.values()) == {load_settings().retention.captured_days}


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_a_releases_logs_volumes_and_messages_are_under_its_environments_key(
    assembly: Assembly, environment: str
) -> None:
    title = environment.capitalize()
    logs = assembly.resources("AWS::Logs::LogGroup", f"FlightDelay-Release-{title}").values()
    config = assembly.one("AWS::SageMaker::EndpointConfig", f"FlightDelay-Serving-{title}")
    reconciler = assembly.one("AWS::StepFunctions::StateMachine", f"FlightDelay-Release-{title}")

    keys = [group["Properties"]["KmsKeyId"] for group in logs]
    assert keys
    for imported in (*keys, config["KmsKeyId"], reconciler["DefinitionSubstitutions"]["Topic"]):
        assert imported["Fn::ImportValue"].startswith(f"{SHARED[environment]}:")


def foreign(assembly: Assembly) -> list[tuple[str, dict[str, Any]]]:
    """Every statement that lets another account's principals in, with the stack and resource that has it."""
    found = []
    for stack, template in assembly.templates.items():
        for name, resource in template["Resources"].items():
            for statement in policies_of(resource):
                principal = json.dumps(statement["Principal"])
                if statement["Effect"] == "Allow" and any(account in principal for account in ACCOUNTS.values()):
                    found.append((f"{stack}/{name}", statement))
    return [(name, statement) for name, statement in found
            if account_of(statement) != ACCOUNTS[environment_of(name.partition("/")[0])]]  # fmt: skip


def policies_of(resource: dict[str, Any]) -> list[dict[str, Any]]:
    """The statements of a resource's own policy."""
    properties = {} if resource["Type"].startswith("AWS::IAM::") else resource.get("Properties", {})
    documents = [properties.get(key) for key in ("PolicyDocument", "KeyPolicy", "Policy", "ModelPackageGroupPolicy")]
    return [statement for document in documents if isinstance(document, dict) for statement in document["Statement"]]


def account_of(statement: dict[str, Any]) -> str:
    text = json.dumps(statement["Principal"])
    return next(account for account in ACCOUNTS.values() if account in text)


def environment_of(stack: str) -> str:
    return next((name for name in ("staging", "production") if stack.endswith(name.capitalize())), "training")


NAMED = {
    ("222222222222", "pushline-flight-delay-staging-serving"),
    ("222222222222", "pushline-flight-delay-staging-reconcile"),
    ("333333333333", "pushline-flight-delay-production-serving"),
    ("333333333333", "pushline-flight-delay-production-reconcile"),
    ("111111111111", "pushline-flight-delay-staging-forward"),
    ("111111111111", "pushline-flight-delay-production-forward"),
    ("111111111111", "pushline-flight-delay-production-monitor"),
    ("111111111111", "pushline-flight-delay-production-measure"),
}


def test_across_accounts_every_policy_knows_named_roles_only(otherwise: dict[str, Assembly]) -> None:
    named = set()
    for name, statement in foreign(otherwise["accounts"]):
        (condition,) = statement["Condition"]["ArnEquals"].values()
        role = json.dumps(condition).rpartition(":role/")[2].partition('"')[0]
        assert "*" not in role, name
        assert account_of(statement) in json.dumps(condition), name
        named.add((account_of(statement), role))
    assert named >= NAMED
    assert {role for account, role in named if "flight-delay" in role} == {role for _, role in NAMED}


def test_every_named_role_exists_in_its_account_under_that_name(otherwise: dict[str, Assembly]) -> None:
    made = {(ACCOUNTS[environment_of(stack)], found["Properties"]["RoleName"])
            for stack in otherwise["accounts"].templates
            for found in otherwise["accounts"].resources("AWS::IAM::Role", stack).values()
            if "RoleName" in found["Properties"]}  # fmt: skip
    assert made >= NAMED


def test_no_policy_has_a_principal_of_everybody(otherwise: dict[str, Assembly]) -> None:
    for template in otherwise["accounts"].templates.values():
        for resource in template["Resources"].values():
            for statement in policies_of(resource):
                if resource["Type"] == "AWS::EC2::VPCEndpoint":  # it can't name roles, but their account
                    assert statement["Condition"]["StringEquals"]["aws:PrincipalAccount"] in ACCOUNTS.values()
                    continue
                assert statement["Effect"] == "Deny" or "*" not in json.dumps(statement["Principal"])


def test_one_account_has_no_names_and_no_policies_for_others(assembly: Assembly) -> None:
    for stack, template in assembly.templates.items():
        for name, resource in template["Resources"].items():
            properties = resource.get("Properties", {})
            assert not {"RoleName", "BucketName", "ModelPackageGroupPolicy"} & set(properties), (stack, name)
            assert "aws:PrincipalArn" not in json.dumps(properties), (stack, name)
            assert resource["Type"] != "AWS::Events::EventBus", (stack, name)


def test_only_stagings_reconciler_may_approve_from_another_account(otherwise: dict[str, Assembly]) -> None:
    group = otherwise["accounts"].one("AWS::SageMaker::ModelPackageGroup", "FlightDelay-Training")
    deciding = {account_of(statement): statement["Condition"]["StringEquals"]["sagemaker:ModelApprovalStatus"]
                for statement in group["ModelPackageGroupPolicy"]["Statement"]
                if statement["Action"] == "sagemaker:UpdateModelPackage"}  # fmt: skip
    assert deciding == {ACCOUNTS["staging"]: ["Approved", "Rejected"], ACCOUNTS["production"]: ["Rejected"]}


def test_training_lends_its_key_through_s3_for_the_one_bucket_only(otherwise: dict[str, Assembly]) -> None:
    lent = [statement for name, statement in foreign(otherwise["accounts"]) if "/Key" in name]
    assert lent
    for statement in lent:
        through = statement["Condition"]["StringEquals"]
        assert statement["Action"] == "kms:Decrypt"
        assert "s3.eu-west-1." in json.dumps(through["kms:ViaService"])
        assert "arn:aws:s3:::pushline-" in through["kms:EncryptionContext:aws:s3:arn"]


def test_every_stack_is_for_its_environments_account_and_none_refers_to_another_accounts(
    otherwise: dict[str, Assembly],
) -> None:
    artifacts = json.loads((otherwise["accounts"].path / "manifest.json").read_text())["artifacts"]
    for stack in otherwise["accounts"].templates:
        place = f"aws://{ACCOUNTS[environment_of(stack)]}/eu-west-1"
        assert artifacts[stack]["environment"] == place
        for imported in re.findall(
            r'"Fn::ImportValue": "([^:"]+):', json.dumps(otherwise["accounts"].templates[stack])
        ):
            assert artifacts[imported]["environment"] == place, (stack, imported)
