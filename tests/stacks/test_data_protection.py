"""What holds for everything in every template: buckets, keys, logs, topics, tags and the bound of roles."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config import load_settings
from tests.conftest import Assembly
from tests.rehearsal.iam_reference import overlap
from tests.stacks import policies
from tests.stacks.cfn_lint import errors_and_warnings

RETENTION = load_settings().retention
WRITES_LOGS = {"logs:PutLogEvents", "logs:CreateLogStream", "logs:CreateLogGroup"}
CREATION = {"Fn::Select": [2, {"Fn::Split": ["/", {"Ref": "AWS::StackId"}]}]}
"""The part of a stack's id that is made up when the stack is created."""
NOT_TAGGED = {
    "AWS::IAM::Policy", "AWS::KMS::Alias", "AWS::Lambda::EventInvokeConfig", "AWS::Lambda::Permission",
    "AWS::S3::BucketPolicy", "AWS::SNS::TopicPolicy", "AWS::SNS::Subscription", "AWS::SQS::QueuePolicy",
    "AWS::Glue::SecurityConfiguration", "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::EC2::SecurityGroupEgress", "AWS::EC2::SecurityGroupIngress",
    "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::Glue::Connection", "AWS::Logs::ResourcePolicy", "AWS::Events::EventBusPolicy", "AWS::Scheduler::Schedule",
}  # fmt: skip
"""Types that take no tags."""
TAGS = {"AWS::Budgets::Budget": "ResourceTags"}
"""The property, where a type calls its tags otherwise."""


def everything(assembly: Assembly, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every resource of a type in every stack, called `<stack>/<logical id>`."""
    for stack in assembly.templates:
        for name, found in assembly.resources(kind, stack).items():
            yield f"{stack}/{name}", found


def properties(found: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = found.get("Properties", {})
    return given


def test_every_bucket_is_private_versioned_encrypted_and_tidied(assembly: Assembly) -> None:
    found = dict(everything(assembly, "AWS::S3::Bucket"))
    assert found
    for name, bucket in found.items():
        given = properties(bucket)
        assert set(given["PublicAccessBlockConfiguration"].values()) == {True}, name
        assert given["VersioningConfiguration"] == {"Status": "Enabled"}, name
        assert given["BucketEncryption"], name
        assert given["LifecycleConfiguration"]["Rules"], name
        assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain", name


def test_every_bucket_logs_its_accesses_but_the_one_that_holds_these_logs(assembly: Assembly) -> None:
    for name, bucket in everything(assembly, "AWS::S3::Bucket"):
        logs = "AccessLogs" in name
        assert ("LoggingConfiguration" in properties(bucket)) is not logs, name
        algorithm = properties(bucket)["BucketEncryption"]["ServerSideEncryptionConfiguration"][0]
        # S3 delivers access logs only to buckets under its own key.
        assert ("aws:kms" in json.dumps(algorithm)) is not logs, name


def test_every_bucket_and_topic_refuses_plain_http(assembly: Assembly) -> None:
    for kind, policy, attribute in (("AWS::S3::Bucket", "AWS::S3::BucketPolicy", "Bucket"),
                                    ("AWS::SNS::Topic", "AWS::SNS::TopicPolicy", "Topics"),
                                    ("AWS::SQS::Queue", "AWS::SQS::QueuePolicy", "Queues")):  # fmt: skip
        refusing = json.dumps([properties(found)[attribute] for _, found in everything(assembly, policy)
                               if _refuses_plain_http(properties(found)["PolicyDocument"])])  # fmt: skip
        for name, _ in everything(assembly, kind):
            assert f'"{name.rpartition("/")[2]}"' in refusing, name


def _refuses_plain_http(document: dict[str, Any]) -> bool:
    return any(statement["Effect"] == "Deny"
               and statement.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
               for statement in document["Statement"])  # fmt: skip


@pytest.mark.parametrize(("bucket", "days"), [("Artifacts", RETENTION.registry_days),
                                              ("PipelineStore", RETENTION.staging_days),
                                              ("AccessLogs", RETENTION.access_logs_days),
                                              ("Data", None), ("Traffic", None)])  # fmt: skip
def test_what_a_bucket_holds_is_kept_for_the_configured_time(assembly: Assembly, bucket: str, days: int | None) -> None:
    buckets = {name: found for name, found in everything(assembly, "AWS::S3::Bucket") if f"/{bucket}" in name}
    assert buckets
    for name, found in buckets.items():
        (rule,) = [rule for rule in properties(found)["LifecycleConfiguration"]["Rules"] if "Prefix" not in rule]
        assert rule.get("ExpirationInDays") == days, name
        kept = min(days or RETENTION.old_versions_days, RETENTION.old_versions_days)
        assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": kept}, name


def test_every_log_group_has_a_retention_and_our_key(assembly: Assembly) -> None:
    found = dict(everything(assembly, "AWS::Logs::LogGroup"))
    assert found
    for name, group in found.items():
        assert properties(group)["RetentionInDays"] == RETENTION.logs_days, name
        assert "Key" in json.dumps(properties(group)["KmsKeyId"]), name


def test_a_log_group_with_a_fixed_name_goes_with_its_stack_so_that_the_next_one_can_make_it(assembly: Assembly) -> None:
    named = {name: group for name, group in everything(assembly, "AWS::Logs::LogGroup")
             if "LogGroupName" in properties(group) and not _is_named_anew(group)}  # fmt: skip
    assert named
    assert {name: group["DeletionPolicy"] for name, group in named.items()} == dict.fromkeys(named, "Delete")


def _is_named_anew(group: dict[str, Any]) -> bool:
    """Whether its name is another one with every stack."""
    name = properties(group).get("LogGroupName")
    return isinstance(name, dict) and CREATION in name["Fn::Join"][1]


def test_every_state_machine_logs_where_no_policy_of_the_account_has_to_name_its_group(
    assembly: Assembly, otherwise: dict[str, Assembly]
) -> None:
    for settings, made in {"shipped": assembly, **otherwise}.items():
        names = [name for stack in made.templates for name in _destinations(made, stack)]
        assert len(names) >= 8, settings
        assert all(name[0].startswith("/aws/vendedlogs/") and name[1:] == [CREATION] for name in names), settings
        assert len({name[0] for name in names}) == len(names), settings


def _destinations(made: Assembly, stack: str) -> Iterator[list[Any]]:
    """The name of the group, in its parts, of each log destination of each state machine of a stack."""
    groups = made.resources("AWS::Logs::LogGroup", stack)
    for machine in made.resources("AWS::StepFunctions::StateMachine", stack).values():
        destinations = properties(machine)["LoggingConfiguration"]["Destinations"]
        assert destinations
        for destination in destinations:
            group, attribute = destination["CloudWatchLogsLogGroup"]["LogGroupArn"]["Fn::GetAtt"]
            assert attribute == "Arn"
            yield properties(groups[group])["LogGroupName"]["Fn::Join"][1]


def test_a_state_machines_log_is_kept_but_where_the_update_that_made_it_failed(assembly: Assembly) -> None:
    """Tried once more, that update would find its name taken."""
    kept = {name: (group["DeletionPolicy"], group["UpdateReplacePolicy"])
            for name, group in everything(assembly, "AWS::Logs::LogGroup") if _is_named_anew(group)}  # fmt: skip
    assert kept
    assert kept == dict.fromkeys(kept, ("RetainExceptOnCreate", "Retain"))


def test_every_log_group_that_a_role_writes_to_is_made_here(assembly: Assembly, otherwise: dict[str, Assembly]) -> None:
    for kind, made in {"shipped": assembly, **otherwise}.items():
        there = ["/aws/sagemaker/TrainingJobs", "/aws/sagemaker/ProcessingJobs"] if kind == "bounded" else []
        names = there + [_pattern(properties(group).get("LogGroupName", name))
                 for name, group in everything(made, "AWS::Logs::LogGroup")]  # fmt: skip
        for stack in made.templates:
            groups = set(made.resources("AWS::Logs::LogGroup", stack))
            for statement in policies.statements(made, stack):
                if WRITES_LOGS & set(statement.actions):
                    unknown = [on for on in statement.resources if not _is_known(on, names, groups)]
                    assert unknown == [], (stack, statement.holder)


def _is_known(resource: str, names: list[str], groups: set[str]) -> bool:
    """A group of the same template, or one by name; what only the deployment knows is compared as any text."""
    found = re.search(r":log-group:(.*)", _pattern(json.loads(resource)) if resource.startswith("{") else resource)
    if found is None:
        return any(f'"{group}"' in resource for group in groups)
    return any(overlap(found[1].partition(":")[0], name) for name in names)


def _pattern(name: Any) -> str:
    if isinstance(name, dict):
        return "".join(part if isinstance(part, str) else "*" for part in name.get("Fn::Join", ["", [name]])[1])
    return str(name)


def test_no_role_of_sagemaker_makes_a_log_group(assembly: Assembly) -> None:
    makers = {statement.holder for statement in policies.statements(assembly)
              if "logs:CreateLogGroup" in statement.actions}  # fmt: skip
    assert all("JobsFeatures" in maker for maker in makers), makers


def test_groups_that_jobs_of_an_account_share_have_one_owner_in_each(
    assembly: Assembly, otherwise: dict[str, Assembly]
) -> None:
    shared = {f"/aws/sagemaker/{kind}" for kind in ("TrainingJobs", "ProcessingJobs")}
    owners = {"shipped": ["Foundation"], "accounts": ["Foundation", "Production", "Staging"], "bounded": []}
    for name, stacks in owners.items():
        made = assembly if name == "shipped" else otherwise[name]
        for group in shared:
            found = [stack for stack in made.templates for one in made.resources("AWS::Logs::LogGroup", stack).values()
                     if properties(one).get("LogGroupName") == group]  # fmt: skip
            assert sorted(found) == [f"Pushline-{owner}" for owner in stacks], (name, group)


def test_every_key_rotates_and_every_topic_is_encrypted(assembly: Assembly) -> None:
    for name, key in everything(assembly, "AWS::KMS::Key"):
        assert properties(key)["EnableKeyRotation"] is True, name
    for name, topic in everything(assembly, "AWS::SNS::Topic"):
        assert "Key" in json.dumps(properties(topic)["KmsMasterKeyId"]), name


def test_everything_that_takes_tags_says_its_model_and_environment(assembly: Assembly) -> None:
    for stack, template in assembly.templates.items():
        for name, found in template["Resources"].items():
            if found["Type"] not in NOT_TAGGED:
                tags = json.dumps(properties(found).get(TAGS.get(found["Type"], "Tags")))
                assert "pushline:model" in tags and "pushline:environment" in tags, (stack, name, found["Type"])  # noqa: PT018


def test_every_stack_says_its_model_and_environment(assembly: Assembly) -> None:
    artifacts = json.loads((assembly.path / "manifest.json").read_text())["artifacts"]
    for name in assembly.templates:
        assert set(artifacts[name]["properties"]["tags"]) == {"pushline:model", "pushline:environment"}, name


def test_a_permissions_boundary_bounds_every_role(otherwise: dict[str, Assembly]) -> None:
    roles = dict(everything(otherwise["bounded"], "AWS::IAM::Role"))
    assert len(roles) > 10
    for name, role in roles.items():
        assert ":policy/teams/pushline-boundary" in json.dumps(properties(role)["PermissionsBoundary"]), name


def test_roles_are_not_bounded_unless_config_says_so(assembly: Assembly) -> None:
    assert not [name for name, role in everything(assembly, "AWS::IAM::Role")
                if "PermissionsBoundary" in properties(role)]  # fmt: skip


@pytest.mark.parametrize("settings", ["shipped", "accounts", "bounded", "connected"])
def test_templates_have_neither_errors_nor_warnings(
    assembly: Assembly, otherwise: dict[str, Assembly], settings: str
) -> None:
    made = assembly if settings == "shipped" else otherwise[settings]
    # What one model's stacks are, the other's are; with the shipped settings and in three accounts all are looked at.
    files = [file for file in sorted(made.path.glob("*.template.json"))
             if settings in ("shipped", "accounts") or not file.name.startswith("BikeDemand")]  # fmt: skip
    assert len(files) >= 10
    assert errors_and_warnings(files) == []


def test_a_mistake_in_one_of_many_templates_is_found(assembly: Assembly, tmp_path: Path) -> None:
    first, second, *_ = sorted(assembly.path.glob("*-Monitoring.template.json"))
    template = json.loads(second.read_text())
    alarm = next(found for found in template["Resources"].values() if found["Type"] == "AWS::CloudWatch::Alarm")
    alarm["Properties"]["Treshold"] = 1
    wrong = tmp_path / "wrong.template.json"
    wrong.write_text(json.dumps(template))
    (found,) = errors_and_warnings([first, wrong])
    assert found.startswith(str(wrong))
    assert "'Treshold' was unexpected" in found
