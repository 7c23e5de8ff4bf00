"""What our services check is what AWS checks: actions, resources and keys of its service authorization reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.model import ListShape, MapShape, Shape, StructureShape

from rehearsal.fidelity import operations
from rehearsal.service import Caller, Permission, Service, model
from rehearsal.services import SERVICES
from rehearsal.store import Store
from tests.rehearsal.iam_reference import Reference, reference
from tests.rehearsal.loopback import Loopback

CALLER = Caller("000000000000", "us-east-1", "arn:aws:iam::000000000000:root", "test")
ROLE = "arn:aws:iam::000000000000:role/a-role"
TAGGED = {
    "sagemaker": "endpoint/an-endpoint",
    "codecommit": "a-repository",
    "codepipeline": "a-pipeline",
    "codebuild": "project/a-project",
    "scheduler": "schedule-group/a-group",
    "application-autoscaling": "scalable-target/1234",
}
"""A resource of each service that can be tagged."""
GIVEN = {
    "ModelPackageArn": "arn:aws:sagemaker:us-east-1:000000000000:model-package/a-group/1",
    "ServiceNamespace": "sagemaker",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    "ResourceId": "endpoint/an-endpoint/variant/AllTraffic",
}
"""Members that can't be any text."""


@pytest.fixture(scope="module")
def known() -> Reference:
    return reference()


def every_operation() -> list[Any]:
    pairs = [(service, operation) for service in SERVICES for operation in operations(service)]
    return [pytest.param(service, operation, id=f"{service.name}:{operation}") for service, operation in pairs]


@pytest.mark.parametrize(("service", "operation"), every_operation())
def test_every_check_is_one_that_aws_makes(
    service: type[Service], operation: str, known: Reference, tmp_path: Path
) -> None:
    cloud = Loopback(Store(tmp_path / "store.sqlite"), tmp_path, "http://127.0.0.1:1")
    asked: list[Permission] = service(cloud).permissions(operation, sample(service.name, operation), CALLER)
    complaints = [c for p in asked for c in known.complaints(p.action, [p.resource], p.context)]
    assert complaints == []
    assert any(p.action.partition(":")[2].lower() == operation.lower() for p in asked) or not asked


def sample(service: str, operation: str) -> dict[str, Any]:
    """A request with every required member, and those by which resources are named."""
    shape = model(service).operation_model(operation).input_shape
    made: dict[str, Any] = _value("", shape, service) if shape is not None else {}
    return made


def _value(name: str, shape: Shape, service: str, depth: int = 0) -> Any:
    if isinstance(shape, StructureShape):
        named = [n for n in shape.members if n in shape.required_members or (depth == 0 and _names(n))]
        return {n: _value(n, shape.members[n], service, depth + 1) for n in named}
    if isinstance(shape, ListShape):
        return [_value(name, shape.member, service, depth + 1)]
    if isinstance(shape, MapShape):
        return {}
    return _text(name, service) if shape.type_name == "string" else 1


def _names(member: str) -> bool:
    """Whether a request names a resource by it."""
    return member.lower().endswith(("name", "arn")) or member in ("id", "ids")


def _text(name: str, service: str) -> str:
    if "role" in name.lower():
        return ROLE
    if name.lower() == "resourcearn":
        return f"arn:aws:{service}:us-east-1:000000000000:{TAGGED[service]}"
    if name in GIVEN:
        return GIVEN[name]
    return "a-name:1" if name in ("id", "ids") else "a-name"
