"""The Model Registry over boto3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.sagemaker import SageMaker
from rehearsal.service import Caller
from tests.rehearsal.loopback import Loopback, serve

CALLER = Caller("000000000000", "us-east-1")
GROUP = "flight-delay"
PACKAGES = f"arn:aws:sagemaker:us-east-1:000000000000:model-package/{GROUP}"
SPECIFICATION = {
    "Containers": [{"Image": "image", "ModelDataUrl": "s3://artifacts/model.tar.gz"}],
    "SupportedContentTypes": ["text/csv"],
    "SupportedResponseMIMETypes": ["text/csv"],
}


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with serve(SageMaker, tmp_path=tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def cloud(loopback: Loopback) -> Iterator[Loopback]:
    """A registry with one empty group."""
    client = loopback.client("sagemaker")
    client.create_model_package_group(ModelPackageGroupName=GROUP, Tags=[{"Key": "pushline:model", "Value": GROUP}])
    loopback.events.clear()
    yield loopback
    for package in listed(loopback, MaxResults=100):
        client.delete_model_package(ModelPackageName=package["ModelPackageArn"])
    client.delete_model_package_group(ModelPackageGroupName=GROUP)


def register(cloud: Loopback, **more: Any) -> str:
    made = cloud.client("sagemaker").create_model_package(
        ModelPackageGroupName=GROUP, InferenceSpecification=SPECIFICATION, **more
    )
    return str(made["ModelPackageArn"])


def listed(cloud: Loopback, **filters: Any) -> list[dict[str, Any]]:
    found = cloud.client("sagemaker").list_model_packages(ModelPackageGroupName=GROUP, **filters)
    return list(found["ModelPackageSummaryList"])


def versions(found: list[dict[str, Any]]) -> list[int]:
    return [package["ModelPackageVersion"] for package in found]


def test_versions_count_up_and_a_deleted_one_is_never_used_again(cloud: Loopback) -> None:
    first, second = register(cloud), register(cloud)
    assert first.endswith(f":model-package/{GROUP}/1")
    cloud.client("sagemaker").delete_model_package(ModelPackageName=second)
    assert register(cloud).endswith(f"/{GROUP}/3")


def test_the_same_client_token_registers_once(cloud: Loopback) -> None:
    first = register(cloud, ClientToken="run-1")
    assert register(cloud, ClientToken="run-1") == first
    assert versions(listed(cloud)) == [1]
    with pytest.raises(ClientError, match="ConflictException"):
        register(cloud, ClientToken="run-1", ModelPackageDescription="another")


def test_a_version_is_described_as_registered(cloud: Loopback) -> None:
    metadata = {"commit": "abc", "champion": "0.71"}
    made = register(cloud, CustomerMetadataProperties=metadata, MetadataProperties={"CommitId": "abc"})
    described = cloud.client("sagemaker").describe_model_package(ModelPackageName=made)
    assert described["ModelApprovalStatus"] == "PendingManualApproval"
    assert described["ModelPackageStatus"] == "Completed"
    assert described["CustomerMetadataProperties"] == metadata
    assert described["InferenceSpecification"] == SPECIFICATION
    assert described["MetadataProperties"] == {"CommitId": "abc"}


@pytest.mark.parametrize(
    "metadata",
    [{"lineage": '{"a": 1}'}, {"a,b": "c"}, {"quote": '"'}, {"long": "x" * 257}, {str(n): "x" for n in range(51)}],
)
def test_metadata_that_sagemaker_does_not_take_is_refused(cloud: Loopback, metadata: dict[str, str]) -> None:
    with pytest.raises(ClientError, match="ValidationException"):
        register(cloud, CustomerMetadataProperties=metadata)
    assert listed(cloud) == []


def test_approving_changes_the_status_and_tells_eventbridge(cloud: Loopback) -> None:
    made = register(cloud)
    cloud.client("sagemaker").update_model_package(
        ModelPackageArn=made,
        ModelApprovalStatus="Approved",
        ApprovalDescription="better",
        CustomerMetadataProperties={"approver": "staging"},
    )
    described = cloud.client("sagemaker").describe_model_package(ModelPackageName=made)
    assert (described["ModelApprovalStatus"], described["ApprovalDescription"]) == ("Approved", "better")
    assert described["CustomerMetadataProperties"] == {"approver": "staging"}
    created, approved = cloud.events
    assert approved["detail-type"] == "SageMaker Model Package State Change"
    assert approved["resources"] == [made]
    assert created["detail"]["ModelApprovalStatus"] == "PendingManualApproval"
    assert (
        approved["detail"]
        | {
            "ModelPackageGroupName": GROUP,
            "ModelPackageVersion": 1,
            "ModelPackageArn": made,
            "ModelApprovalStatus": "Approved",
        }
        == approved["detail"]
    )


def test_versions_are_filtered_sorted_and_paged(cloud: Loopback) -> None:
    made = [register(cloud) for _ in range(12)]
    cloud.client("sagemaker").update_model_package(ModelPackageArn=made[3], ModelApprovalStatus="Approved")
    assert versions(listed(cloud, ModelApprovalStatus="Approved")) == [4]
    assert versions(listed(cloud, SortBy="CreationTime", SortOrder="Ascending", MaxResults=3)) == [1, 2, 3]
    pages = (
        cloud.client("sagemaker")
        .get_paginator("list_model_packages")
        .paginate(ModelPackageGroupName=GROUP, SortBy="CreationTime", SortOrder="Descending")
    )
    found = [versions(page["ModelPackageSummaryList"]) for page in pages]
    assert found == [[12, 11, 10, 9, 8, 7, 6, 5, 4, 3], [2, 1]]


def test_a_page_does_not_shift_when_a_version_is_added(cloud: Loopback) -> None:
    for _ in range(3):
        register(cloud)
    client = cloud.client("sagemaker")
    first = client.list_model_packages(ModelPackageGroupName=GROUP, MaxResults=2, SortOrder="Descending")
    register(cloud)
    rest = listed(cloud, MaxResults=2, SortOrder="Descending", NextToken=first["NextToken"])
    assert versions(rest) == [1]


def test_a_group_with_versions_is_not_deleted(cloud: Loopback) -> None:
    register(cloud)
    with pytest.raises(ClientError, match="still contains model packages"):
        cloud.client("sagemaker").delete_model_package_group(ModelPackageGroupName=GROUP)


def test_a_group_has_tags_and_a_version_has_none(cloud: Loopback) -> None:
    client = cloud.client("sagemaker")
    group = client.describe_model_package_group(ModelPackageGroupName=GROUP)["ModelPackageGroupArn"]
    client.add_tags(ResourceArn=group, Tags=[{"Key": "owner", "Value": "us"}])
    client.delete_tags(ResourceArn=group, TagKeys=["pushline:model"])
    assert client.list_tags(ResourceArn=group)["Tags"] == [{"Key": "owner", "Value": "us"}]
    with pytest.raises(ClientError, match="ValidationException"):
        client.add_tags(ResourceArn=register(cloud), Tags=[{"Key": "a", "Value": "b"}])


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.describe_model_package_group(ModelPackageGroupName="nothing"),
        lambda c: c.create_model_package(ModelPackageGroupName="nothing"),
        lambda c: c.create_model_package_group(ModelPackageGroupName=GROUP),
        lambda c: c.update_model_package(ModelPackageArn=f"{PACKAGES}/9", ModelApprovalStatus="Approved"),
        lambda c: c.create_model_package(ModelPackageGroupName=GROUP, ModelApprovalStatus="Maybe"),
    ],
)
def test_what_does_not_exist_or_is_not_allowed_is_a_validation_error(cloud: Loopback, call: Any) -> None:
    with pytest.raises(ClientError, match="ValidationException"):
        call(cloud.client("sagemaker"))


def test_only_who_may_set_an_approval_status_can(loopback: Loopback) -> None:
    service = loopback.service("sagemaker")
    made = f"{PACKAGES}/1"
    (update,) = service.permissions(
        "UpdateModelPackage", {"ModelPackageArn": made, "ModelApprovalStatus": "Approved"}, CALLER
    )
    assert (update.resource, update.context["sagemaker:ModelApprovalStatus"]) == (made, "Approved")
    create = service.permissions("CreateModelPackage", {"ModelPackageGroupName": GROUP}, CALLER)
    assert {p.resource.split(":", 5)[5] for p in create} == {f"model-package/{GROUP}/*"}
    assert {p.context["sagemaker:ModelApprovalStatus"] for p in create} == {"PendingManualApproval"}


def test_every_operation_that_runs_has_permissions(tmp_path: Path) -> None:
    with serve(SageMaker, tmp_path=tmp_path) as cloud:
        service = cloud.service("sagemaker")
        operations = cloud.client("sagemaker").meta.service_model.operation_names
        listed = {name for part in type(service).__mro__ for name in getattr(part, "PERMISSIONS", {})}
        assert {name for name in operations if service.runs(name)} == listed


def test_a_version_goes_through_the_stages_of_its_life_cycle_and_each_is_an_event(cloud: Loopback) -> None:
    made = register(cloud)
    client = cloud.client("sagemaker")
    stage = {"Stage": "Staging", "StageStatus": "Accepted", "StageDescription": "It answered its sample request."}
    client.update_model_package(ModelPackageArn=made, ModelLifeCycle=stage)
    assert client.describe_model_package(ModelPackageName=made)["ModelLifeCycle"] == stage
    (package,) = listed(cloud)
    assert package["ModelLifeCycle"] == stage
    assert cloud.events[-1]["detail"]["ModelLifeCycle"] == stage
    assert package["ModelApprovalStatus"] == "PendingManualApproval"


def test_who_may_set_a_stage_can_be_limited_by_its_condition_keys(cloud: Loopback) -> None:
    stage = {"Stage": "Shadow", "StageStatus": "Compared"}
    params = {"ModelPackageArn": f"{PACKAGES}/1", "ModelLifeCycle": stage}
    (permission,) = cloud.service("sagemaker").permissions("UpdateModelPackage", params, CALLER)
    keys = {"sagemaker:ModelLifeCycle:stage": "Shadow", "sagemaker:ModelLifeCycle:stageStatus": "Compared"}
    assert permission.context == keys
