"""The foundation: what it protects, and what survives its deletion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import Assembly, python

FOUNDATION = "Pushline-Foundation"
KEPT = ("AWS::S3::Bucket", "AWS::KMS::Key", "AWS::CodeCommit::Repository", "AWS::SageMaker::ModelPackageGroup")


def bucket(assembly: Assembly, name: str) -> dict[str, Any]:
    found = assembly.resources("AWS::S3::Bucket", FOUNDATION)
    (resource,) = [resource for logical_id, resource in found.items() if logical_id.startswith(name)]
    return resource


def test_new_data_reaches_the_event_bus(assembly: Assembly) -> None:
    configuration = bucket(assembly, "Data")["Properties"]["NotificationConfiguration"]
    assert configuration == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}


def test_there_is_no_custom_resource(assembly: Assembly) -> None:
    kinds = {found["Type"] for template in assembly.templates.values() for found in template["Resources"].values()}
    assert not [kind for kind in kinds if kind.startswith(("Custom::", "AWS::CloudFormation::CustomResource"))]


def test_data_and_registry_are_retained(assembly: Assembly) -> None:
    for kind in KEPT:
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
