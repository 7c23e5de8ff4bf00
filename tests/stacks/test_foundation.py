"""The foundation: what it protects, and what survives its deletion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Assembly, python, synthesize

FOUNDATION = "Pushline-Foundation"
KEPT = ("AWS::S3::Bucket", "AWS::KMS::Key", "AWS::CodeCommit::Repository", "AWS::SageMaker::ModelPackageGroup")
BUCKETS = ("Data", "Artifacts", "PipelineStore", "AccessLogs")


def bucket(assembly: Assembly, name: str) -> dict[str, Any]:
    found = assembly.resources("AWS::S3::Bucket", FOUNDATION)
    (resource,) = [resource for logical_id, resource in found.items() if logical_id.startswith(name)]
    return resource


@pytest.mark.parametrize("name", BUCKETS)
def test_every_bucket_is_private_versioned_and_tidied(assembly: Assembly, name: str) -> None:
    properties = bucket(assembly, name)["Properties"]
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert properties["LifecycleConfiguration"]["Rules"]


def test_every_bucket_refuses_plain_http(assembly: Assembly) -> None:
    found = assembly.resources("AWS::S3::BucketPolicy", FOUNDATION).values()
    denials = [statement for policy in found for statement in policy["Properties"]["PolicyDocument"]["Statement"]
               if statement["Effect"] == "Deny"
               and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}]  # fmt: skip
    assert len(denials) == len(BUCKETS)


@pytest.mark.parametrize("name", ["Data", "Artifacts", "PipelineStore"])
def test_data_is_encrypted_under_our_key_and_its_access_is_logged(assembly: Assembly, name: str) -> None:
    properties = bucket(assembly, name)["Properties"]
    (rule,) = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert "AccessLogs" in json.dumps(properties["LoggingConfiguration"])


def test_the_key_rotates(assembly: Assembly) -> None:
    assert assembly.one("AWS::KMS::Key", FOUNDATION)["EnableKeyRotation"] is True


def test_new_data_reaches_the_event_bus(assembly: Assembly) -> None:
    configuration = bucket(assembly, "Data")["Properties"]["NotificationConfiguration"]
    assert configuration == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}


def test_there_is_no_custom_resource(assembly: Assembly) -> None:
    kinds = {found["Type"] for template in assembly.templates.values() for found in template["Resources"].values()}
    assert not [kind for kind in kinds if kind.startswith(("Custom::", "AWS::CloudFormation::CustomResource"))]


def test_data_and_registry_are_retained(assembly: Assembly) -> None:
    for kind in (
        "AWS::S3::Bucket",
        "AWS::KMS::Key",
        "AWS::CodeCommit::Repository",
        "AWS::SageMaker::ModelPackageGroup",
    ):
        for name, found in assembly.resources(kind).items():
            assert found["DeletionPolicy"] == "Retain", name


SETTINGS_DISAGREE_OR_AGREE = """
import json, os, pathlib, aws_cdk as cdk
from config import load_settings
from stacks.foundation_stack import FoundationStack
flags = json.loads(pathlib.Path("cdk.json").read_text())["context"]
for in_config, at_command in ((True, False), (False, True), (True, True)):
    settings = load_settings().model_copy(update={"destroy_data": in_config})
    app = cdk.App(context={**flags, "pushline:destroy-data": at_command},
                  outdir=os.path.join(os.environ["CDK_OUTDIR"], f"{in_config}-{at_command}"))
    FoundationStack(app, "Pushline-Foundation", settings=settings)
    app.synth()
"""


def test_data_is_destroyed_only_when_both_settings_say_so(tmp_path: Path) -> None:
    done = python("-c", SETTINGS_DISAGREE_OR_AGREE, target=tmp_path)
    assert done.returncode == 0, done.stderr
    for name, policy in {"True-False": "Retain", "False-True": "Retain", "True-True": "Delete"}.items():
        buckets = Assembly(tmp_path / name).resources("AWS::S3::Bucket")
        assert {found["DeletionPolicy"] for found in buckets.values()} == {policy}, name
        warned = "do not agree" in (tmp_path / name / "Pushline-Foundation.metadata.json").read_text()
        assert warned is (policy == "Retain"), name


def test_two_syntheses_give_the_same_bytes(assembly: Assembly, tmp_path: Path) -> None:
    done = synthesize(tmp_path / "again", PYTHONHASHSEED="7", TZ="Asia/Tokyo", CDK_DEFAULT_ACCOUNT="111111111111",
                      CDK_DEFAULT_REGION="eu-west-1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "again") == contents(assembly.path)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_the_assembly_names_no_path_of_this_machine(assembly: Assembly) -> None:
    for name, text in contents(assembly.path).items():
        assert str(ROOT).encode() not in text, name


def test_templates_have_no_errors(assembly: Assembly) -> None:
    from cfnlint import core  # takes a second to import
    from cfnlint.api import lint_file

    assert core
    errors = [f"{file.name}: {match}" for file in sorted(assembly.path.glob("*.template.json"))
              for match in lint_file(file) if match.rule.id.startswith("E")]  # fmt: skip
    assert errors == []
