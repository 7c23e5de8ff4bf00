"""The whole push on reduced data: real git, the templates as synthesized, real jobs, a real endpoint, IAM on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import httpx
import pytest

from rehearsal import second_opinion
from rehearsal.traffic import Tally, Traffic
from stacks.seldom_used import SELDOM_USED, kind
from tests.rehearsal.scientist import (
    BETTER,
    MODEL,
    REDUCED,
    THROUGH,
    Document,
    Scientist,
    configure,
    private_clone,
    rehearsal,
)
from tests.rehearsal.waiting import until

PATIENT = {"serving.alarms.p99_latency_ms": 60_000}
"""On a machine with other tests a good version may answer late once; tests of bad versions prove the alarm."""


@dataclass(frozen=True)
class Seen:
    """What was seen when a step of the story had come to rest."""

    commit: str
    execution: Document
    status: Document
    live: dict[str, Document]

    @property
    def newest(self) -> Document:
        """The newest model package."""
        package: Document = self.status["model_packages"][0]
        return package


def look(person: Scientist, model: str = MODEL) -> Seen:
    live = {name: person.live(model, name) for name in ("staging", "production")}
    status = person.status()
    execution = next(row for row in status["pipelines"] if row["model"] == model)
    return Seen(person.git("rev-parse", "HEAD").strip(), execution, status, live)


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scientist]:
    clone = private_clone(tmp_path_factory.mktemp("a-push") / "clone", MODEL)
    configure(clone / "model_code" / MODEL, PATIENT)
    with rehearsal(clone) as person:
        person.configure(REDUCED)
        person.load()
        yield person


@pytest.fixture(scope="module")
def first(person: Scientist) -> Seen:
    person.pushed("The first push")
    return look(person)


@pytest.fixture(scope="module")
def second(person: Scientist, first: Seen) -> tuple[Seen, Tally]:
    """A better challenger, pushed while requests keep coming."""
    url = next(row["url"] for row in first.status["endpoints"] if row["environment"] == "production")
    payload = (person.folder() / "tests" / "sample_request.json").read_bytes()
    person.configure(BETTER)
    with Traffic(url, payload, "application/json", per_second=5, workers=2) as tally:
        person.pushed("A better challenger")
    return look(person), tally


@pytest.fixture(scope="module")
def rolled_back(person: Scientist, second: tuple[Seen, Tally]) -> Seen:
    person.verb("reject", MODEL, "2", "--reason", "no good")

    def live() -> list[int]:
        return [row["version"] for row in person.status()["endpoints"]]

    # `wait` alone may come before the reconcilers have heard of it, and find everything at rest.
    until(lambda: live() == [1, 1], lambda: f"live are {live()}")
    person.wait()
    return look(person)


@pytest.fixture(scope="module")
def monitored(person: Scientist, rolled_back: Seen) -> Document:
    """The daily look at what is live, as its schedule starts it; the execution when it had ended."""
    (stack,) = person.at.client("cloudformation").describe_stacks(StackName="FlightDelay-Monitoring")["Stacks"]
    (monitor,) = (found["OutputValue"] for found in stack["Outputs"] if found["OutputKey"] == "Monitor")
    machines = person.at.client("stepfunctions")
    began = machines.start_execution(stateMachineArn=monitor, input=json.dumps({"started_by": "Schedule"}))

    def look() -> Document:
        return dict(machines.describe_execution(executionArn=began["executionArn"]))

    until(lambda: look()["status"] != "RUNNING", "monitoring did not end")
    return look()


def test_the_push_was_verified_trained_evaluated_and_registered(first: Seen) -> None:
    assert (first.execution["status"], first.execution["trigger"]) == ("Succeeded", "push")
    assert first.execution["commit"] == first.commit
    package = first.newest
    assert (package["version"], package["approval_status"]) == (1, "Approved")
    assert 0.5 < package["metrics"]["auc"] < 1
    assert {"auc", "log_loss"} <= set(package["metrics"])
    assert package["champion_metrics"] is None


def test_its_lineage_is_whole(person: Scientist, first: Seen) -> None:
    lineage = first.newest["lineage"]
    wanted = {"model": MODEL, "commit": first.commit, "trigger": "push", "as_of": THROUGH, "champion_version": None,
              "pipeline_execution": first.execution["execution"]}  # fmt: skip
    assert {key: lineage[key] for key in wanted} == wanted
    assert first.commit[:8] in lineage["reason"]
    assert lineage["hyperparameters"] == {"num_round": "2", "max_depth": "2", "eta": "0.1"}
    assert lineage["decision"]["passed"] is True
    job = person.at.client("sagemaker").describe_training_job(TrainingJobName=lineage["training_job"])
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == lineage["model_data"]
    assert job["AlgorithmSpecification"]["TrainingImage"] == lineage["image"]
    run = person.at.client("glue").get_job_run(JobName="flight-delay-features", RunId=lineage["feature_run"])
    assert run["JobRun"]["JobRunState"] == "SUCCEEDED"
    for address in (lineage["bundle"]["uri"], lineage["data"]["quality"], lineage["sample_request"]):
        bucket, _, key = address.removeprefix("s3://").partition("/")
        assert person.at.client("s3").head_object(Bucket=bucket, Key=key)["ContentLength"] > 0


def test_staging_then_production_run_it_and_say_which_version_answers(first: Seen) -> None:
    for environment, answer in first.live.items():
        assert (answer["model"], answer["environment"]) == (MODEL, environment)
        assert (answer["version"], answer["commit"]) == (1, first.commit)
        assert "[" in answer["prediction"]
    ended = {row["environment"]: row for row in first.status["releases"]}
    assert {name: row["status"] for name, row in ended.items()} == {"staging": "SUCCEEDED", "production": "SUCCEEDED"}
    assert ended["staging"]["started"] < ended["production"]["started"]


def test_the_endpoints_answer_plain_http(first: Seen, person: Scientist) -> None:
    payload = (person.folder() / "tests" / "sample_request.csv").read_bytes()
    for endpoint in first.status["endpoints"]:
        assert httpx.get(f"{endpoint['url']}/ping", timeout=70).status_code == 200
        answer = httpx.post(f"{endpoint['url']}/invocations", content=payload, headers={"Content-Type": "text/csv"},
                            timeout=70)  # fmt: skip
        assert answer.status_code == 200, answer.text
        assert endpoint["version"] == 1


def test_status_has_the_shape_that_was_agreed(first: Seen) -> None:
    lists = {
        "pipelines": ("model", "execution", "status", "trigger", "commit"),
        "model_packages": ("model", "version", "approval_status", "metrics", "lineage"),
        "releases": ("model", "environment", "version", "status", "reason"),
        "endpoints": ("model", "environment", "name", "status", "version", "commit", "url"),
    }
    assert set(first.status) == {*lists, "triggers", "schema"}
    assert first.status["schema"] == 1
    for name, keys in lists.items():
        assert first.status[name], name
        assert all(set(keys) <= set(row) for row in first.status[name]), name
    for name in ("pipelines", "releases"):
        started = [datetime.fromisoformat(row["started"]) for row in first.status[name]]
        assert started == sorted(started, reverse=True)


def test_status_and_logs_are_readable(person: Scientist, first: Seen) -> None:
    table = person.verb("status")
    assert first.execution["execution"][:8] in table
    log = person.verb("logs", first.execution["execution"])
    for part in ("the model's own tests", "BuildFeatures", '"passed": true', "train_auc=", "challenger_auc="):
        assert part in log, f"{part} is not in\n{log}"
    assert "train_auc=" in person.verb("logs", first.newest["lineage"]["training_job"])


def test_a_better_challenger_goes_live_under_traffic(second: tuple[Seen, Tally], first: Seen) -> None:
    seen, tally = second
    assert (seen.newest["version"], seen.newest["approval_status"]) == (2, "Approved")
    assert seen.newest["metrics"]["auc"] > seen.newest["champion_metrics"]["auc"] == first.newest["metrics"]["auc"]
    assert seen.newest["lineage"]["champion_version"] == 1
    assert {answer["version"] for answer in seen.live.values()} == {2}
    assert {answer["commit"] for answer in seen.live.values()} == {seen.commit}
    assert tally.failed == 0, tally.errors[:3]
    assert {arn.rpartition("/")[2] for arn in tally.answers} == {"1", "2"}


def test_reject_rolls_back_without_retraining(
    person: Scientist, second: tuple[Seen, Tally], rolled_back: Seen, first: Seen
) -> None:
    assert {answer["version"] for answer in rolled_back.live.values()} == {1}
    assert {answer["commit"] for answer in rolled_back.live.values()} == {first.commit}
    assert rolled_back.newest["approval_status"] == "Rejected"
    assert rolled_back.newest["reason"] == "no good"
    assert rolled_back.status["pipelines"] == second[0].status["pipelines"]
    assert len(person.at.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]) == 2


def test_what_is_live_is_compared_with_what_it_was_trained_on(monitored: Document) -> None:
    assert monitored["status"] == "SUCCEEDED", monitored.get("cause")


def test_nothing_was_denied(person: Scientist, monitored: Document) -> None:
    assert json.loads(person.verb("audit", "--denied", "--json")) == []


def test_an_independent_evaluator_agrees_with_every_decision(person: Scientist, monitored: Document) -> None:
    opinion = json.loads(person.verb("audit", "--check", "--json"))
    assert opinion["disagreements"] == []
    assert opinion["decided"] > 1000
    assert set(opinion["left_out"]) == {second_opinion.LEFT_OUT["administrator"]}


def test_every_allowed_call_names_the_statement_that_allowed_it(person: Scientist, monitored: Document) -> None:
    calls = [call for call in json.loads(person.verb("audit", "--json")) if call["principal"] != "root"]
    assert [call for call in calls if "statement" not in call] == []


def test_what_was_granted_and_not_used_is_what_the_table_says(person: Scientist, monitored: Document) -> None:
    kinds = _kinds(person)
    unused = {(kinds[row["role"]], row["action"]) for row in json.loads(person.verb("audit", "--unused", "--json"))
              if row["role"] in kinds}  # fmt: skip
    explained = {pair for row in SELDOM_USED for pair in row.pairs()}
    always = {pair for row in SELDOM_USED if not row.by_chance for pair in row.pairs()}
    assert (sorted(unused - explained), sorted(always - unused)) == ([], []), (
        "granted, not used, and not explained; explained, and used or granted no more"
    )


def _kinds(person: Scientist) -> dict[str, str]:
    """The roles' kinds by their names."""
    stacks = person.at.client("cloudformation")
    names = [found["StackName"] for found in stacks.describe_stacks()["Stacks"]]
    return {found["PhysicalResourceId"]: kind(name, found["LogicalResourceId"])
            for name in names if name.startswith(("FlightDelay-", "Pushline-"))
            for found in stacks.describe_stack_resources(StackName=name)["StackResources"]
            if found["ResourceType"] == "AWS::IAM::Role"}  # fmt: skip
