"""The door to retraining as it is deployed: its rules, its function, its schedules and its permissions, for real.

Only the foundation's and the repository's stacks are deployed; the models are pipelines that do nothing but wait.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rehearsal import assembly as cloud_assembly
from rehearsal import audit
from rehearsal.codecommit import git_url
from rehearsal.connection import look
from rehearsal.landscape import ModelParts
from rehearsal.server import Running
from rehearsal.triggers import by_hand, triggers
from tests.conftest import Assembly
from tests.rehearsal.conftest import make_role, running
from tests.rehearsal.scientist import until
from tests.rehearsal.test_codecommit import commit, git
from tests.rehearsal.test_codepipeline import action

STACKS = ("Pushline-Foundation", "Pushline-Repository")
OBJECTS = 60
TIME_SCALE = 60.0
"""Data settles within half a minute; the storm must be over well before a quarter."""
Row = dict[str, Any]


@dataclass
class Place:
    """A rehearsal with the door, and a clone to push from."""

    at: Running
    clone: Path

    def model(self, name: str, *, seconds: int = 0, **values: Any) -> str:
        """Deploy a model: its parameter, and a pipeline whose retraining waits."""
        states = {"Wait": {"Type": "Wait", "Seconds": seconds, "End": True}}
        machine = self.at.client("stepfunctions").create_state_machine(
            name=name,
            roleArn="arn:aws:iam::000000000000:role/retrain",
            definition=json.dumps({"StartAt": "Wait", "States": states}),
        )["stateMachineArn"]
        pipeline = f"pushline-{name}"
        self.at.client("codepipeline").create_pipeline(pipeline=_declaration(pipeline, machine))
        value = {"pipeline": pipeline, "watch": [f"model_code/{name}"], "on_new_data": True, "on_drift": True,
                 "cool_down_hours": 0, **values}  # fmt: skip
        self.at.client("ssm").put_parameter(Name=f"/pushline/models/{name}", Value=json.dumps(value), Type="String")
        return pipeline

    def push(self, **files: str) -> str:
        made = commit(self.clone, **files)
        git(self.clone, "push", "-q", "origin", "HEAD:main")
        return made

    def land(self, model: str, *names: str) -> None:
        s3 = self.at.client("s3")
        (bucket,) = [found["Name"] for found in s3.list_buckets()["Buckets"] if "-data" in found["Name"]]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: s3.put_object(Bucket=bucket, Key=f"raw/{model}/{name}", Body=b"x"), names))

    def triggers(self, model: str | None) -> list[Row]:
        client_of, landscape = look(self.at)
        return [row for row in triggers(client_of, landscape.start_retraining_log) if row["model"] == model]

    def started(self, pipeline: str) -> list[Row]:
        """The executions that were started with a reason, oldest first."""
        client = self.at.client("codepipeline")
        found = client.list_pipeline_executions(pipelineName=pipeline)["pipelineExecutionSummaries"]
        return [row for row in found[::-1] if row["trigger"]["triggerType"] == "StartPipelineExecution"]

    def variables(self, pipeline: str, execution: Row) -> dict[str, str]:
        found = self.at.client("codepipeline").get_pipeline_execution(
            pipelineName=pipeline, pipelineExecutionId=execution["pipelineExecutionId"]
        )
        return {item["name"]: item["resolvedValue"] for item in found["pipelineExecution"]["variables"]}


@pytest.fixture(scope="module")
def place(assembly: Assembly, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("triggers")
    with running(folder / "state", time_scale=TIME_SCALE) as at:
        cloud_assembly.deploy(at, _only(assembly.path, folder / "cdk.out"), Console(quiet=True))
        make_role(at, "retrain", "states.amazonaws.com")
        make_role(at, "pipeline", "codepipeline.amazonaws.com", {"Action": "*", "Resource": "*"})
        at.client("s3").create_bucket(Bucket="store")
        clone = folder / "clone"
        clone.mkdir()
        git(clone, "init", "-q", "-b", "main")
        git(clone, "remote", "add", "origin", git_url(at.state_dir, at.endpoint, "pushline"))
        yield Place(at, clone)


def test_before_the_first_push_new_data_is_ignored_and_visible(place: Place) -> None:
    place.model("early")
    place.land("early", "dt=2013-01-01/a.csv")
    until(lambda: bool(place.triggers("early")), "the arrival was not decided on")
    (row,) = place.triggers("early")
    assert (row["trigger"], row["decision"], row["count"]) == ("data", "ignore", 1)
    assert row["reason"].startswith("nothing was ever pushed")


def test_a_storm_of_objects_gives_one_retraining_with_the_last_one_in_it(place: Place) -> None:
    pipeline = place.model("storm")
    place.push(model_code__storm__model_dot_yaml="name: storm")
    until(lambda: len(place.started(pipeline)) == 1, "the push started nothing")
    place.land("storm", *(f"dt=2013-01-01/{number}.csv" for number in range(OBJECTS)))
    place.land("storm", "dt=2013-01-02/last.csv", "dt=2099-01-01/mistake.csv")
    until(lambda: len(place.started(pipeline)) == 2, f"no retraining: {place.triggers('storm')}")
    started = place.started(pipeline)[-1]
    assert place.variables(pipeline, started) == {"Trigger": "data", "Reason": "new data up to 2013-01-02",
                                                  "AsOf": "2013-01-02"}  # fmt: skip
    arrivals = [row for row in place.triggers("storm") if row["decision"] == "defer"]
    assert sum(row["count"] for row in arrivals) == OBJECTS + 1
    assert len(arrivals) <= 2
    refused = [row["reason"] for row in place.triggers("storm") if row["decision"] == "ignore"]
    assert "day 2099-01-01 lies in the future" in refused
    schedules = place.at.client("scheduler")
    until(lambda: not _waiting(schedules, "storm"), "a schedule was left behind")
    assert len(place.started(pipeline)) == 2


def test_a_drift_alarm_comes_through_and_waits_for_the_cool_down(place: Place) -> None:
    pipeline = place.model("cooling", cool_down_hours=6)
    place.push(model_code__cooling__model_dot_yaml="name: cooling")
    until(lambda: len(place.started(pipeline)) == 1, "the push started nothing")
    _alarm(place.at, "cooling-drift-prediction")
    until(lambda: any(row["decision"] == "defer" for row in place.triggers("cooling")), "the alarm did not come")
    (row,) = [row for row in place.triggers("cooling") if row["trigger"] == "drift"]
    assert "cool-down of 6 h" in row["reason"]
    assert datetime.fromisoformat(row["until"])
    assert _waiting(place.at.client("scheduler"), "cooling-drift")
    assert len(place.started(pipeline)) == 1


def test_a_drift_alarm_starts_the_pipeline_of_its_model_and_no_other(place: Place) -> None:
    pipeline, other = place.model("drifting"), place.model("drifting_not")
    place.push(model_code__drifting__model_dot_yaml="name: drifting")
    until(lambda: len(place.started(pipeline)) == 1, "the push started nothing")
    _alarm(place.at, "drifting-drift-features")
    until(lambda: len(place.started(pipeline)) == 2, f"drift started nothing: {place.triggers('drifting')}")
    variables = place.variables(pipeline, place.started(pipeline)[-1])
    assert variables["Trigger"] == "drift"
    assert "drifting-drift-features" in variables["Reason"]
    assert not place.started(other)


def test_what_an_older_commit_trains_is_never_registered_after_a_newer_one(place: Place) -> None:
    pipeline = place.model("racing", seconds=180)
    commits = [place.push(model_code__racing__train_dot_py=f"# {number}") for number in range(4)]
    until(lambda: _at_rest(place, pipeline, commits[-1]), "the newest push was not retrained")
    client = place.at.client("codepipeline")
    retrained = []
    for execution in place.started(pipeline):
        actions = client.list_action_executions(
            pipelineName=pipeline, filter={"pipelineExecutionId": execution["pipelineExecutionId"]}
        )["actionExecutionDetails"]
        retrained += [(found["startTime"], found["lastUpdateTime"], execution["sourceRevisions"][0]["revisionId"])
                      for found in actions if found["stageName"] == "Retrain"]  # fmt: skip
    retrained.sort()
    order = [commits.index(commit_id) for *_, commit_id in retrained]
    assert order == sorted(order)
    assert order[-1] == 3
    assert all(ended <= began for (_, ended, _), (began, _, _) in itertools.pairwise(retrained))


def test_a_folder_that_is_not_deployed_is_told_and_by_hand_retrains_what_is(place: Place) -> None:
    pipeline = place.model("known")
    place.push(model_code__unknown__model_dot_yaml="name: unknown")
    until(lambda: bool(place.triggers("unknown")), "the push was not decided on")
    assert "run cdk deploy 'Unknown-*'" in place.triggers("unknown")[0]["reason"]
    client_of, landscape = look(place.at)
    landscape.models["known"] = ModelParts("known", pipeline)
    assert by_hand(client_of, landscape, "known", "labels were corrected", "2013-01-01")["decision"] == "start"
    assert place.variables(pipeline, place.started(pipeline)[0]) == {
        "Trigger": "manual", "Reason": "labels were corrected", "AsOf": "2013-01-01"}  # fmt: skip


def test_nothing_was_denied(place: Place) -> None:
    assert list(audit.read(place.at.state_dir, denied=True)) == []


def _only(source: Path, target: Path) -> Path:
    """The assembly with no model's stacks."""
    shutil.copytree(source, target)
    manifest = json.loads((target / "manifest.json").read_text())
    kept = {name: found for name, found in manifest["artifacts"].items()
            if name.removesuffix(".assets") in STACKS or found["type"] == "cdk:tree"}  # fmt: skip
    (target / "manifest.json").write_text(json.dumps({**manifest, "artifacts": kept}))
    return target


def _declaration(name: str, machine: str) -> Row:
    source = {"RepositoryName": "pushline", "BranchName": "main", "PollForSourceChanges": "false"}
    retrain = {"StateMachineArn": machine, "InputType": "Literal", "Input": "{}"}
    return {
        "name": name,
        "roleArn": "arn:aws:iam::000000000000:role/pipeline",
        "pipelineType": "V2",
        "executionMode": "SUPERSEDED",
        "artifactStore": {"type": "S3", "location": "store"},
        "variables": [{"name": name, "defaultValue": "none"} for name in ("Trigger", "Reason", "AsOf")],
        "stages": [
            {"name": "Source",
             "actions": [action("Source", "Source", "CodeCommit", source, outputArtifacts=[{"name": "Source"}])]},
            {"name": "Retrain", "actions": [action("Retrain", "Invoke", "StepFunctions", retrain)]},
        ],
    }  # fmt: skip


def _alarm(at: Running, name: str) -> None:
    metrics = at.client("cloudwatch")
    metrics.put_metric_alarm(
        AlarmName=name, Namespace="Drift", MetricName=name, Statistic="Maximum", Period=60, EvaluationPeriods=1,
        Threshold=1.0, ComparisonOperator="GreaterThanThreshold", TreatMissingData="ignore")  # fmt: skip
    metrics.put_metric_data(Namespace="Drift", MetricData=[{"MetricName": name, "Value": 2.0}])


def _waiting(schedules: Any, prefix: str) -> list[str]:
    return [row["Name"] for row in schedules.list_schedules()["Schedules"] if row["Name"].startswith(prefix)]


def _at_rest(place: Place, pipeline: str, newest: str) -> bool:
    started = place.started(pipeline)
    over = all(row["status"] not in ("InProgress", "Stopping") for row in started)
    heads = [row["sourceRevisions"][0]["revisionId"] for row in started if row.get("sourceRevisions")]
    return over and newest in heads
