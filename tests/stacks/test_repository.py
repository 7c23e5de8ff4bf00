"""The repository, and what stands between a push and the pipelines."""

from __future__ import annotations

import importlib
import json
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from lambdas.start_retraining.events import Watched, parse
from tests.conftest import Assembly
from tests.lambdas.test_start_retraining import push_event
from tests.stacks import policies

REPOSITORY = "Pushline-Repository"


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
    assert set(given) == {"REPOSITORY_ARN", "BRANCH", "MODELS_PATH"}
    parameters = assembly.resources("AWS::SSM::Parameter", "FlightDelay-Training").values()
    names = [parameter["Properties"]["Name"] for parameter in parameters]
    assert f"{given['MODELS_PATH']}/flight_delay" in names


def test_the_rule_matches_the_events_that_the_handler_parses(assembly: Assembly) -> None:
    pattern = assembly.one("AWS::Events::Rule", REPOSITORY)["EventPattern"]
    event = push_event()
    assert event["source"] in pattern["source"]
    assert event["detail-type"] in pattern["detail-type"]
    for key, values in pattern["detail"].items():
        assert event["detail"][key] in values
    assert parse(event, Watched(event["resources"][0], "main"), "r")


@pytest.mark.parametrize(("key", "value"), [("event", "referenceDeleted"), ("referenceName", "feature"),
                                            ("referenceType", "tag")])  # fmt: skip
def test_the_rule_lets_nothing_else_through(assembly: Assembly, key: str, value: str) -> None:
    pattern = assembly.one("AWS::Events::Rule", REPOSITORY)["EventPattern"]
    assert value not in pattern["detail"][key]


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
