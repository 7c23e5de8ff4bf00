"""Who may act in our name: service principals in trust and resource policies are bound to this account."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from stacks.trust import IN_ARNS, SOURCES, UNBOUND
from tests.conftest import Assembly

OTHERWISE_BOUND = {
    "logs": ("kms:EncryptionContext:aws:logs:arn", "CloudWatch Logs names the log group in the encryption context"),
    "budgets": ("aws:SourceAccount", "a budget belongs to an account and to no region"),
}
"""Services in resource policies that are bound by something else than the resource they act for, and by what."""
POLICIES = {
    "AWS::KMS::Key": "KeyPolicy",
    "AWS::S3::BucketPolicy": "PolicyDocument",
    "AWS::SNS::TopicPolicy": "PolicyDocument",
    "AWS::SQS::QueuePolicy": "PolicyDocument",
    "AWS::Events::EventBusPolicy": "Statement",
    "AWS::Logs::ResourcePolicy": "PolicyDocument",
}
Statement = dict[str, Any]


def trusts(assembly: Assembly) -> Iterator[tuple[str, str, Statement]]:
    """(role, service, statement) of every trust policy that lets a service in."""
    for stack in assembly.templates:
        for name, role in assembly.resources("AWS::IAM::Role", stack).items():
            for statement in role["Properties"]["AssumeRolePolicyDocument"]["Statement"]:
                for service in services(statement):
                    yield f"{stack}/{name}", service, statement


def admitted(assembly: Assembly) -> Iterator[tuple[str, str, Statement]]:
    """(resource, service, statement) of every resource policy that lets a service in."""
    for stack in assembly.templates:
        for kind, key in POLICIES.items():
            for name, found in assembly.resources(kind, stack).items():
                document = found["Properties"][key]
                for statement in document.get("Statement", [document]):
                    for service in services(statement):
                        yield f"{stack}/{name}", service, statement


def services(statement: Statement) -> list[str]:
    """The names of the service principals; a principal that carries the region is its service's."""
    principal = statement.get("Principal", {})
    named = principal.get("Service", []) if isinstance(principal, dict) else []
    return [_name(one) for one in (named if isinstance(named, list) else [named])]


def _name(principal: Any) -> str:
    first = principal["Fn::Join"][1][0] if isinstance(principal, dict) else principal
    return str(first).partition(".")[0]


def keys(statement: Statement) -> dict[str, Any]:
    """Condition keys and what they are compared with, whatever the operator."""
    return {key: value for compared in statement.get("Condition", {}).values() for key, value in compared.items()}


def test_there_are_such_policies(assembly: Assembly) -> None:
    assert len({service for _, service, _ in trusts(assembly)}) >= 7
    assert {service for _, service, _ in admitted(assembly)} >= {"logging", "logs", "cloudwatch"}


def test_services_assume_roles_only_for_this_account_or_the_table_says_why_not(assembly: Assembly) -> None:
    for role, service, statement in trusts(assembly):
        if service in UNBOUND:
            assert keys(statement) == {}, role
            continue
        assert keys(statement).get("aws:SourceAccount") == {"Ref": "AWS::AccountId"}, role


def test_services_assume_roles_only_for_a_resource_of_theirs_or_the_table_says_why_not(assembly: Assembly) -> None:
    for role, service, statement in trusts(assembly):
        if service in UNBOUND:
            continue
        source = keys(statement)["aws:SourceArn"]
        if "Fn::GetAtt" in source:
            continue
        named = json.dumps(source)
        assert f":{IN_ARNS.get(service, service)}:" in named, role
        assert SOURCES[service] in named, role
        assert '"AWS::AccountId"' in named, role
        assert '"AWS::Region"' in named, role


@pytest.mark.parametrize("service", UNBOUND)
def test_no_row_of_the_table_is_left_over(assembly: Assembly, service: str) -> None:
    assert service in {found for _, found, _ in trusts(assembly)}
    assert service not in SOURCES


def test_resource_policies_let_services_act_for_this_account_only(assembly: Assembly) -> None:
    for resource, service, statement in admitted(assembly):
        wanted, _ = OTHERWISE_BOUND.get(service, ("aws:SourceAccount", ""))
        assert wanted in keys(statement), f"{resource}: {service}"


def test_topics_take_messages_of_this_accounts_resources_only(assembly: Assembly) -> None:
    for resource, service, statement in admitted(assembly):
        if "sns:Publish" in json.dumps(statement) and service not in OTHERWISE_BOUND:
            assert f":{service}:" in json.dumps(keys(statement)["aws:SourceArn"]), resource


def test_functions_are_invoked_by_named_resources_only(assembly: Assembly) -> None:
    permissions = assembly.resources("AWS::Lambda::Permission")
    assert permissions
    for name, permission in permissions.items():
        assert "Fn::GetAtt" in permission["Properties"]["SourceArn"], name
