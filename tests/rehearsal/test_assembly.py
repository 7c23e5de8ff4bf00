"""Deploying a cloud assembly: what is published, made, updated and said when it fails."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rehearsal import assembly
from rehearsal.assembly import DeployFailed
from rehearsal.server import Running
from rehearsal.service import Params, Permission, Provisioned, ResourceType, Service, ServiceError, Stack
from tests.rehearsal.daemon import open_queue
from tests.rehearsal.waiting import until

ASSETS = "s3://cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}"


class Repository(ResourceType):
    """A resource whose name replaces it, that can be told to fail, and that notes what happened to it."""

    replacement = frozenset({"RepositoryName"})

    def __init__(self, service: Service) -> None:
        self.store = service.cloud.store

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        return self._note("create", properties, stack)

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        return self._note("update", new, stack)

    def delete(self, physical_id: str, properties: Params, stack: Stack) -> None:
        self._note("delete", {"RepositoryName": physical_id}, stack)

    def _note(self, what: str, properties: Params, stack: Stack) -> Provisioned:
        name = properties["RepositoryName"]
        number = self.store.next_number("note")
        did = f"{what} {name} {properties.get('RepositoryDescription', '')}".strip()
        self.store.put(
            "notes",
            f"{number}",
            {"did": did, "stack": stack.name, "logical": stack.logical_id, "role": stack.role, "tags": stack.tags},
        )
        if properties.get("RepositoryDescription") == "broken":
            raise ServiceError("InvalidRepositoryDescriptionException", "the description is broken")
        return Provisioned(name, {"Arn": f"arn:aws:codecommit:us-east-1:000000000000:{name}", "Name": name})


class Repositories(Service):
    name = "codecommit"

    def permissions(self, operation: str, params: Params, caller: Any) -> list[Permission]:
        return [Permission(f"codecommit:{operation}")]

    def resource_types(self) -> dict[str, ResourceType]:
        return {"AWS::CodeCommit::Repository": Repository(self)}

    def list_repositories(self, caller: Any, params: Params) -> Params:
        """The notes, as names: the test reads them through the front door."""
        return {"repositories": [{"repositoryName": json.dumps(note)} for _, note in self.cloud.store.list("notes")]}


def write(cdk_out: Path, name: str, resources: Params, *needs: str, outputs: Params | None = None) -> Path:
    """Add a stack to the assembly at `cdk_out`, with its template published as CDK does."""
    cdk_out.mkdir(exist_ok=True)
    template = {
        "Resources": resources,
        "Outputs": outputs or {},
        "Parameters": {
            "BootstrapVersion": {
                "Type": "AWS::SSM::Parameter::Value<String>",
                "Default": "/cdk-bootstrap/hnb659fds/version",
            }
        },
    }
    (cdk_out / f"{name}.template.json").write_text(json.dumps(template))
    key = f"{abs(hash(json.dumps(template)))}.json"
    (cdk_out / f"{name}.assets.json").write_text(
        json.dumps(
            {
                "files": {
                    key: {
                        "source": {"path": f"{name}.template.json", "packaging": "file"},
                        "destinations": {"here": {"bucketName": ASSETS.removeprefix("s3://"), "objectKey": key}},
                    }
                }
            }
        )
    )
    manifest = cdk_out / "manifest.json"
    artifacts = json.loads(manifest.read_text())["artifacts"] if manifest.exists() else {}
    artifacts[f"{name}.assets"] = {"type": "cdk:asset-manifest", "properties": {"file": f"{name}.assets.json"}}
    artifacts[name] = {
        "type": "aws:cloudformation:stack",
        "environment": "aws://unknown-account/unknown-region",
        "properties": {
            "templateFile": f"{name}.template.json",
            "tags": {"pushline:model": "m"},
            "stackTemplateAssetObjectUrl": f"{ASSETS}/{key}",
        },
        "dependencies": [f"{name}.assets", *needs],
    }
    manifest.write_text(json.dumps({"artifacts": artifacts}))
    return cdk_out


def repository(name: str, description: str = "", **policies: str) -> Params:
    return {
        "Type": "AWS::CodeCommit::Repository",
        **policies,
        "Properties": {"RepositoryName": name, "RepositoryDescription": description},
    }


def notes(cloud: Running) -> list[Params]:
    return [json.loads(r["repositoryName"]) for r in cloud.client("codecommit").list_repositories()["repositories"]]


def did(cloud: Running) -> list[str]:
    return [note["did"] for note in notes(cloud)]


@pytest.fixture
def said() -> Console:
    return Console(record=True, width=200, file=io.StringIO())


def test_stacks_are_made_in_dependency_order_and_only_changes_are_applied(
    start: Callable[..., Running], tmp_path: Path, said: Console
) -> None:
    cloud = start(Repositories)
    second = write(tmp_path / "out", "Second", {"B": repository("b")}, "First")
    write(second, "First", {"A": repository("a")}, outputs={"Arn": {"Value": {"Fn::GetAtt": ["A", "Arn"]}}})
    assembly.deploy(cloud, second, said)
    assert did(cloud) == ["create a", "create b"]
    assert notes(cloud)[0] == {
        "did": "create a",
        "stack": "First",
        "logical": "A",
        "role": None,
        "tags": {"pushline:model": "m"},
    }
    outputs = cloud.client("cloudformation").describe_stacks(StackName="First")["Stacks"][0]["Outputs"]
    assert outputs[0]["OutputValue"].endswith(":a")
    assembly.deploy(cloud, second, said)
    assert did(cloud) == ["create a", "create b"]
    assert "First: no changes" in said.export_text()


def test_a_change_updates_in_place_or_replaces_as_the_type_says(
    start: Callable[..., Running], tmp_path: Path, said: Console
) -> None:
    cloud = start(Repositories)
    assembly.deploy(cloud, write(tmp_path / "1", "S", {"A": repository("a")}), said)
    assembly.deploy(cloud, write(tmp_path / "2", "S", {"A": repository("a", "new")}), said)
    assembly.deploy(cloud, write(tmp_path / "3", "S", {"A": repository("b", "new")}), said)
    assembly.deploy(cloud, write(tmp_path / "4", "S", {"A": repository("c", UpdateReplacePolicy="Retain")}), said)
    assert did(cloud) == ["create a", "update a new", "create b new", "delete a", "create c"]


def test_a_failed_update_rolls_back_what_it_changed_and_says_why(
    start: Callable[..., Running], tmp_path: Path, said: Console
) -> None:
    cloud = start(Repositories)
    events = cloud.client("events")
    events.put_rule(
        Name="status",
        EventPattern=json.dumps(
            {"source": ["aws.cloudformation"], "detail": {"status-details": {"status": ["UPDATE_ROLLBACK_COMPLETE"]}}}
        ),
    )
    queue = open_queue(cloud, "q")
    events.put_targets(Rule="status", Targets=[{"Id": "1", "Arn": "arn:aws:sqs:us-east-1:000000000000:q"}])
    assembly.deploy(cloud, write(tmp_path / "1", "S", {"A": repository("a", "old"), "B": repository("b")}), said)
    worse = write(
        tmp_path / "2", "S", {"A": repository("a", "new"), "B": repository("b", "broken") | {"DependsOn": "A"}}
    )
    with pytest.raises(DeployFailed, match=r"S: UPDATE_ROLLBACK_COMPLETE; B \(AWS::CodeCommit::Repository\): .*broken"):
        assembly.deploy(cloud, worse, said)
    assert did(cloud)[2:] == ["update a new", "update b broken", "update a old"]
    sqs = cloud.client("sqs")
    until(lambda: sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5).get("Messages"), "no event came")


def test_a_failed_create_can_be_deployed_again(start: Callable[..., Running], tmp_path: Path, said: Console) -> None:
    cloud = start(Repositories)
    with pytest.raises(DeployFailed, match=r"S: ROLLBACK_COMPLETE; A .*the description is broken"):
        assembly.deploy(cloud, write(tmp_path / "1", "S", {"A": repository("a", "broken")}), said)
    assembly.deploy(cloud, write(tmp_path / "2", "S", {"A": repository("a")}), said)
    assert did(cloud)[-1] == "create a"


def test_a_type_that_nobody_rehearses_is_refused_before_anything_is_made(
    start: Callable[..., Running], tmp_path: Path, said: Console
) -> None:
    cloud = start(Repositories)
    resources = {"A": repository("a"), "C": {"Type": "AWS::Omics::Workflow", "Properties": {}}}
    with pytest.raises(DeployFailed, match=r"Unrecognized resource types: \[AWS::Omics::Workflow\]"):
        assembly.deploy(cloud, write(tmp_path / "1", "S", resources), said)
    assert did(cloud) == []


def test_resources_are_made_under_the_role_that_the_operation_names(
    start: Callable[..., Running], tmp_path: Path, said: Console
) -> None:
    cloud = start(Repositories)
    assembly.deploy(cloud, write(tmp_path / "1", "S", {"A": repository("a")}), said)
    cloudformation = cloud.client("cloudformation")
    role = "arn:aws:iam::000000000000:role/deployer"
    cloudformation.update_stack(
        StackName="S", TemplateBody=json.dumps({"Resources": {"A": repository("a", "x")}}), RoleARN=role
    )
    cloudformation.get_waiter("stack_update_complete").wait(StackName="S", WaiterConfig={"Delay": 1})
    cloudformation.delete_stack(StackName="S")
    cloudformation.get_waiter("stack_delete_complete").wait(StackName="S", WaiterConfig={"Delay": 1})
    assert [(note["did"], note["role"]) for note in notes(cloud)] == [
        ("create a", None),
        ("update a x", role),
        ("delete a", role),
    ]


def test_an_unreadable_assembly_is_explained(tmp_path: Path, said: Console) -> None:
    with pytest.raises(DeployFailed, match=r"is no cloud assembly; `./pushline synth` writes one"):
        assembly.read(tmp_path, assembly.Place("1", "r"))
