"""The repository, and what stands between a push and the pipelines."""

from __future__ import annotations

import importlib
import json
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from config import load_settings
from contract import load_models
from lambdas.start_retraining.events import Look, Request, Told, Watched, parse
from lambdas.start_retraining.handler import Environment
from lambdas.start_retraining.route import Model, alarmed
from tests.conftest import ROOT, Assembly
from tests.lambdas.retraining_world import ACCOUNT, ARN, DATA, NOON, alarm_event, arrival_event, push_event
from tests.stacks import policies

REPOSITORY = "Pushline-Repository"
EVENTS = {"aws.codecommit": push_event(), "aws.s3": arrival_event(), "aws.cloudwatch": alarm_event()}


def told(event: dict[str, Any]) -> Told:
    return parse(event, Watched(ARN, "main", DATA, ACCOUNT), "r", NOON)


def pattern_of(assembly: Assembly, source: str) -> dict[str, Any]:
    patterns = [rule["Properties"]["EventPattern"] for rule in
                assembly.resources("AWS::Events::Rule", REPOSITORY).values()
                if "EventPattern" in rule["Properties"]]  # fmt: skip
    (found,) = [pattern for pattern in patterns if pattern["source"] == [source]]
    return dict(found)


def asset(assembly: Assembly) -> Path:
    key = assembly.one("AWS::Lambda::Function", REPOSITORY)["Code"]["S3Key"].removesuffix(".zip")
    return assembly.path / f"asset.{key}"


def test_people_find_the_repository_by_name_and_the_rehearsal_by_output(assembly: Assembly) -> None:
    assert assembly.one("AWS::CodeCommit::Repository", REPOSITORY)["RepositoryName"] == "pushline"
    assert "Repository" in assembly.templates[REPOSITORY]["Outputs"]


def test_the_handler_is_in_its_asset_and_nothing_else_is(assembly: Assembly) -> None:
    function = assembly.one("AWS::Lambda::Function", REPOSITORY)
    module, name = function["Handler"].rsplit(".", 1)
    files = {str(file.relative_to(asset(assembly))) for file in asset(assembly).rglob("*") if file.is_file()}
    assert f"{module.replace('.', '/')}.py" in files
    assert all(file == "lambdas/__init__.py" or file.startswith("lambdas/start_retraining/") for file in files)
    assert callable(getattr(importlib.import_module(module), name))
    assert function["Runtime"] == "python3.11"


def test_the_template_gives_the_handler_the_environment_it_reads(assembly: Assembly) -> None:
    given = assembly.one("AWS::Lambda::Function", REPOSITORY)["Environment"]["Variables"]
    assert set(given) == {name.upper() for name in Environment.__dataclass_fields__}
    limits = load_settings().retraining
    assert given["CLEARING_HOURS"] == "72"  # two of the last three daily runs make the alarm
    assert (given["MAXIMUM_PER_DAY"], given["SETTLING_MINUTES"], given["LONGEST_WAIT_HOURS"]) == (
        str(limits.maximum_per_day), str(limits.settling_minutes), str(limits.longest_wait_hours))  # fmt: skip


def test_what_training_stacks_register_is_what_the_handler_reads(assembly: Assembly) -> None:
    given = assembly.one("AWS::Lambda::Function", REPOSITORY)["Environment"]["Variables"]
    found = {parameter["Properties"]["Name"].rpartition("/")[::2]: parameter["Properties"]["Value"]
             for parameter in assembly.resources("AWS::SSM::Parameter").values()}  # fmt: skip
    registered = {name: json.loads(value) for (path, name), value in found.items() if path == given["MODELS_PATH"]}
    assert "flight_delay" in registered
    for name, value in registered.items():
        assert Model(name, **value).declaration == f"model_code/{name}/model.yaml"
        assert set(value) == {"pipeline", "watch", "on_new_data", "on_drift", "cool_down_hours"}


@pytest.mark.parametrize("source", EVENTS)
def test_each_rule_matches_the_events_that_the_handler_parses(assembly: Assembly, source: str) -> None:
    pattern, event = pattern_of(assembly, source), EVENTS[source]
    assert event["detail-type"] in pattern["detail-type"]
    assert told(event)


def test_the_push_rule_lets_only_the_branch_through(assembly: Assembly) -> None:
    detail = pattern_of(assembly, "aws.codecommit")["detail"]
    assert all(push_event()["detail"][key] in values for key, values in detail.items())
    for key, value in (("referenceName", "feature"), ("referenceType", "tag")):
        assert value not in detail[key]
    assert "referenceDeleted" in detail["event"]  # it starts nothing, and `status` says so


@pytest.mark.parametrize(("name", "looked_at"), [("bounded", 1), ("connected", 0)])
def test_what_can_be_asked_is_looked_at_every_hour(
    assembly: Assembly, otherwise: dict[str, Assembly], name: str, looked_at: int
) -> None:
    """CodeCommit's events are best effort; a connection's pushes are CodePipeline's own business."""
    found = looks(assembly)
    assert [rule["ScheduleExpression"] for rule in found] == ["rate(1 hour)"]
    (target,) = found[0]["Targets"]
    assert "StartRetraining" in json.dumps(target["Arn"])
    assert told(json.loads(target["Input"])) == Look()
    assert len(looks(otherwise[name])) == looked_at


def looks(assembly: Assembly) -> list[dict[str, Any]]:
    rules = assembly.resources("AWS::Events::Rule", REPOSITORY).values()
    return [rule["Properties"] for rule in rules if "ScheduleExpression" in rule["Properties"]]


def test_the_data_rule_lets_only_raw_data_through(assembly: Assembly) -> None:
    detail = pattern_of(assembly, "aws.s3")["detail"]
    assert detail["object"]["key"] == [{"prefix": "raw/"}]
    assert "Data" in json.dumps(detail["bucket"]["name"])
    buckets = [found["Properties"] for name, found in assembly.resources("AWS::S3::Bucket").items()
               if name.startswith("Data")]  # fmt: skip
    assert buckets[0]["NotificationConfiguration"]["EventBridgeConfiguration"]["EventBridgeEnabled"] is True


def test_the_drift_rule_matches_the_drift_alarms_that_are_deployed(assembly: Assembly) -> None:
    detail = pattern_of(assembly, "aws.cloudwatch")["detail"]
    assert detail == {"alarmName": [{"wildcard": "*-drift-*"}], "state": {"value": ["ALARM"]}}
    models = [Model(found.name, "p", ()) for found in load_models(ROOT, load_settings().guardrails)]
    about = {}
    for stack in assembly.templates:
        for alarm in assembly.resources("AWS::CloudWatch::Alarm", stack).values():
            name = alarm["Properties"].get("AlarmName")
            if isinstance(name, str) and fnmatchcase(name, "*-drift-*"):
                request = told(alarm_event(name))
                assert isinstance(request, Request)
                about[name] = alarmed(request.model, models)
    assert {model.name for model in about.values() if model} == {model.name for model in models}
    assert None not in about.values()


def test_schedules_may_invoke_the_function_and_nothing_else(assembly: Assembly) -> None:
    (role,) = [found["Properties"] for name, found in assembly.resources("AWS::IAM::Role", REPOSITORY).items()
               if name.startswith("ScheduleRole")]  # fmt: skip
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "scheduler.amazonaws.com"}
    assert trust["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    group = {"Fn::GetAtt": ["Schedules", "Arn"]}
    assert trust["Condition"]["ArnEquals"] == {"aws:SourceArn": group}
    policy = assembly.one("AWS::IAM::Policy", REPOSITORY)
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert (statement["Action"], statement["Effect"]) == ("lambda:InvokeFunction", "Allow")
    assert "StartRetraining" in json.dumps(statement["Resource"])
    (holder,) = policy["Roles"]
    assert holder["Ref"].startswith("ScheduleRole")


def test_the_function_makes_schedules_in_its_own_group_and_lists_raw_data_only(assembly: Assembly) -> None:
    by_action = {action: found for found in policies.of(assembly, "StartRetrainingRole") for action in found.actions}
    assert {action for action in by_action if action.startswith("scheduler:")} == {
        "scheduler:CreateSchedule", "scheduler:GetSchedule"}  # fmt: skip
    (schedules,) = by_action["scheduler:CreateSchedule"].resources
    assert "Schedules" in schedules
    assert by_action["iam:PassRole"].conditions == {
        "StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}}  # fmt: skip
    listed = [found for found in policies.of(assembly, "StartRetrainingRole") if "s3:ListBucket" in found.actions]
    assert [found.conditions["StringLike"]["s3:prefix"] for found in listed] == [["source/routed.json"], ["raw/*"]]
    assert {action for action in by_action if action.startswith("s3:")} == {
        "s3:ListBucket", "s3:GetObject", "s3:PutObject"}  # fmt: skip
    for action in ("s3:GetObject", "s3:PutObject"):
        (kept,) = by_action[action].resources
        assert "Artifacts" in kept
        assert "/source/routed.json" in kept


def test_a_models_schedule_comes_through_the_door(assembly: Assembly) -> None:
    schedule = assembly.one("AWS::Scheduler::Schedule", "FlightDelay-Training")
    assert schedule["ScheduleExpression"] == "cron(0 3 * * ? *)"
    assert "Schedules" in json.dumps(schedule["GroupName"])
    assert "StartRetraining" in json.dumps(schedule["Target"]["Arn"])
    event = json.loads(schedule["Target"]["Input"].replace("<aws.scheduler.scheduled-time>", "2026-11-23T03:00:00Z"))
    request = told(event)
    assert isinstance(request, Request)
    assert (request.model, request.trigger, request.id) == ("flight_delay", "schedule", "2026-11-23T03:00:00Z")


def test_the_function_and_its_log_are_found_by_output(assembly: Assembly) -> None:
    outputs = assembly.templates[REPOSITORY]["Outputs"]
    assert outputs["StartRetraining"]["Value"]["Ref"].startswith("StartRetraining")
    assert outputs["StartRetrainingLog"]["Value"]["Ref"].startswith("StartRetrainingLog")


def test_the_function_starts_pipelines_of_this_project_only(assembly: Assembly) -> None:
    (statement,) = [found for found in policies.of(assembly, "StartRetrainingRole")
                    if "codepipeline:StartPipelineExecution" in found.actions]  # fmt: skip
    names = {found["Properties"]["Name"] for found in assembly.resources("AWS::CodePipeline::Pipeline").values()}
    (resource,) = statement.resources
    pattern = resource.rpartition(":")[2].rstrip(']"}')
    assert pattern == "pushline-*"
    assert names
    assert all(fnmatchcase(name, pattern) for name in names)


def test_a_push_that_could_not_be_routed_is_told(assembly: Assembly) -> None:
    config = assembly.one("AWS::Lambda::EventInvokeConfig", REPOSITORY)
    assert "Notifications" in json.dumps(config["DestinationConfig"]["OnFailure"])
    assert config["MaximumRetryAttempts"] == 2


def test_the_asset_is_what_the_manifest_publishes(assembly: Assembly) -> None:
    assert asset(assembly).is_dir()
    assert not any(zipfile.is_zipfile(file) for file in asset(assembly).rglob("*") if file.is_file())
