"""Which events start which pipelines, and what the function asks AWS for on the way."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from lambdas.start_retraining import handler
from lambdas.start_retraining.decide import Model, Start, decide
from lambdas.start_retraining.events import Ignored, Manual, Push, Watched, parse

ARN = "arn:aws:codecommit:us-east-1:000000000000:pushline"
WATCHED = Watched(ARN, "main")
NEW, OLD = "a" * 40, "b" * 40
FLIGHTS = Model("flight_delay", "pushline-flight-delay", ("model_code/flight_delay", "model_code/shared"))
BIKES = Model("bike_demand", "pushline-bike-demand", ("model_code/bike_demand", "model_code/shared"))


def push_event(**detail: Any) -> dict[str, Any]:
    return {
        "version": "0", "id": "e-1", "detail-type": "CodeCommit Repository State Change", "source": "aws.codecommit",
        "account": "000000000000", "time": "2013-03-01T00:00:00Z", "region": "us-east-1", "resources": [ARN],
        "detail": {"event": "referenceUpdated", "repositoryName": "pushline", "repositoryId": "r", "commitId": NEW,
                   "oldCommitId": OLD, "referenceType": "branch", "referenceName": "main",
                   "referenceFullName": "refs/heads/main", **detail},
    }  # fmt: skip


def changed(**top: Any) -> dict[str, Any]:
    return {**push_event(), **top}


def started(paths: list[str] | None, push: Push | None = None) -> list[str]:
    return [start.model for start in decide(push or Push(NEW, OLD), [FLIGHTS, BIKES], paths)]


def test_a_push_names_its_commits() -> None:
    assert parse(push_event(), WATCHED, "r") == Push(NEW, OLD)


def test_a_new_branch_has_no_old_commit() -> None:
    event = push_event(event="referenceCreated")
    del event["detail"]["oldCommitId"]
    assert parse(event, WATCHED, "r") == Push(NEW)


@pytest.mark.parametrize(("event", "why"), [
    (push_event(event="referenceDeleted"), "deleted"),
    (push_event(referenceName="feature"), "not branch main"),
    (push_event(referenceType="tag"), "not branch main"),
    (push_event(repositoryName="other"), "not about repository pushline"),
    (push_event(commitId="HEAD; rm -rf"), "no commit"),
    (push_event(oldCommitId="../.."), "no commit"),
    (changed(account="111111111111"), "account 111111111111"),
    (changed(resources=[]), "not about repository"),
    (changed(resources=[ARN, ARN.replace("pushline", "other")]), "not about repository"),
    (changed(resources=[ARN.replace("000000000000", "111111111111")]), "not about repository"),
    (changed(source="my.codecommit"), "unknown event"),
    (changed(detail="text"), "no detail"),
    ({}, "unknown event"),
    ({"source": "pushline.manual", "detail": {}}, "must name the model"),
    ({"source": "pushline.manual", "detail": {"model": "m", "as_of": "yesterday"}}, "not a date"),
])  # fmt: skip
def test_what_is_forged_foreign_or_not_a_push_to_the_branch_is_ignored_with_the_reason(
    event: dict[str, Any], why: str
) -> None:
    with pytest.raises(Ignored, match=why):
        parse(event, WATCHED, "r")


@pytest.mark.parametrize(("paths", "models"), [
    (["model_code/flight_delay/train.py"], ["flight_delay"]),
    (["model_code/shared/calendar.py"], ["flight_delay", "bike_demand"]),
    (["model_code/flight_delay_2/train.py", "model_code/bike_demand/model.yaml"], ["bike_demand"]),
    (None, ["flight_delay", "bike_demand"]),
])  # fmt: skip
def test_a_push_starts_the_models_whose_folders_it_touches(paths: list[str] | None, models: list[str]) -> None:
    assert started(paths) == models


@pytest.mark.parametrize("paths", [["README.md"], ["model_code/flight_delay_2/train.py"], []])
def test_a_push_that_touches_no_model_starts_nothing(paths: list[str]) -> None:
    with pytest.raises(Ignored, match="touches no model"):
        started(paths)


def test_the_same_push_has_the_same_token_and_every_other_one_another() -> None:
    def token(commit: str, old: str, model: Model) -> str:
        (start,) = decide(Push(commit, old), [model], None)
        return start.token

    assert token(NEW, OLD, FLIGHTS) == token(NEW, OLD, FLIGHTS)
    others = {token(NEW, OLD, BIKES), token(OLD, NEW, FLIGHTS), token(NEW, "c" * 40, FLIGHTS)}
    assert len(others | {token(NEW, OLD, FLIGHTS)}) == 4
    assert all(token.isalnum() and len(token) <= 128 for token in others)


def test_variables_are_never_empty_and_the_reason_is_short() -> None:
    (start,) = decide(Push(NEW, OLD), [FLIGHTS], [f"model_code/flight_delay/{'x' * 2000}.py"])
    assert start.variables[0] == {"name": "Trigger", "value": "push"}
    assert all(1 <= len(variable["value"]) <= 256 for variable in start.variables)


@pytest.mark.parametrize("name", ['"},{"name":"MODEL","value":"x', "a\\", "#{Source.CommitId}", "a\nb", "é"])
def test_a_files_name_is_never_more_than_text_in_the_reason(name: str) -> None:
    (start,) = decide(Push(NEW, OLD), [FLIGHTS], [f"model_code/flight_delay/{name}"])
    listed = json.loads(json.dumps([{"name": "REASON", "value": "#R"}]).replace("#R", start.reason))
    assert listed == [{"name": "REASON", "value": start.reason}]
    assert not set(start.reason) & set('"\\{}#\n')


def test_a_manual_request_starts_the_model_it_names() -> None:
    event = {"source": "pushline.manual", "detail": {"model": "bike_demand", "reason": "", "as_of": "2013-03-01"}}
    (start,) = decide(parse(event, WATCHED, "request-1"), [FLIGHTS, BIKES], None)
    assert (start.model, start.trigger, start.reason, start.as_of) == (
        "bike_demand", "manual", "manual request", "2013-03-01")  # fmt: skip


def test_a_manual_request_for_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(Ignored, match="bike_demand, flight_delay"):
        decide(Manual("flights", "why", "", "r"), [FLIGHTS, BIKES], None)


class Aws:
    """The three services that the function calls, answering in order and refusing what their APIs would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        names = ("ssm", "codecommit", "codepipeline")
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
        self._clients = {name: boto3.client(name, **keys) for name in names}
        self.stubs = {name: Stubber(client) for name, client in self._clients.items()}
        for stub in self.stubs.values():
            stub.activate()
        monkeypatch.setattr(handler, "_client", self._clients.__getitem__)
        for name, value in {"REPOSITORY_ARN": ARN, "BRANCH": "main", "MODELS_PATH": "/pushline/models"}.items():
            monkeypatch.setenv(name, value)

    def models(self, *models: Model) -> None:
        found = [{"Name": f"/pushline/models/{model.name}",
                  "Value": json.dumps({"pipeline": model.pipeline, "watch": model.watch})}
                 for model in models]  # fmt: skip
        self.stubs["ssm"].add_response("get_parameters_by_path", {"Parameters": found}, {"Path": "/pushline/models"})

    def commit(self, commit: str, *, known: bool = True) -> None:
        asked = {"repositoryName": "pushline", "commitId": commit}
        if known:
            self.stubs["codecommit"].add_response("get_commit", {"commit": {"commitId": commit}}, asked)
        else:
            self.stubs["codecommit"].add_client_error(
                "get_commit", "CommitIdDoesNotExistException", expected_params=asked)  # fmt: skip

    def differences(self, paths: list[str], token: str | None = None, then: str | None = None) -> None:
        asked = {"repositoryName": "pushline", "beforeCommitSpecifier": OLD, "afterCommitSpecifier": NEW}
        blobs: list[dict[str, Any]] = [{"changeType": "M", "afterBlob": {"path": path}} for path in paths]
        answer = {"differences": blobs, **({"NextToken": then} if then else {})}
        more = {"NextToken": token} if token else {}
        self.stubs["codecommit"].add_response("get_differences", answer, {**asked, **more})

    def start(self, start: Start) -> None:
        asked = {"name": start.pipeline, "variables": start.variables, "clientRequestToken": start.token}
        answer = {"pipelineExecutionId": "12345678-1234-1234-1234-123456789012"}
        self.stubs["codepipeline"].add_response("start_pipeline_execution", answer, asked)

    def invoke(self, event: dict[str, Any]) -> dict[str, Any]:
        answer = handler.handle(event, SimpleNamespace(aws_request_id="request-1"))
        for stub in self.stubs.values():
            stub.assert_no_pending_responses()
        return answer


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Aws:
    return Aws(monkeypatch)


def test_a_push_reads_all_pages_of_what_changed_and_starts_the_pipeline(
    aws: Aws, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.models(FLIGHTS, BIKES)
    aws.commit(NEW)
    aws.commit(OLD)
    aws.differences(["README.md"], then="page-2")
    aws.differences(["model_code/bike_demand/train.py"], token="page-2")
    (expected,) = decide(Push(NEW, OLD), [BIKES], ["model_code/bike_demand/train.py"])
    aws.start(expected)
    assert [made["model"] for made in aws.invoke(push_event())["decisions"]] == ["bike_demand"]
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["reason"] == "push aaaaaaaa changes model_code/bike_demand/train.py"
    assert json.loads(line)["event"] == "e-1"


def test_a_commit_that_was_never_pushed_starts_nothing(aws: Aws) -> None:
    aws.models(FLIGHTS)
    aws.commit(NEW, known=False)
    assert aws.invoke(push_event()) == {"decision": "ignore", "why": f"commit {NEW} is not in repository pushline"}


def test_when_the_old_commit_is_gone_everything_counts_as_changed(aws: Aws) -> None:
    aws.models(FLIGHTS, BIKES)
    aws.commit(NEW)
    aws.commit(OLD, known=False)
    for start in decide(Push(NEW, OLD), [FLIGHTS, BIKES], None):
        aws.start(start)
    assert len(aws.invoke(push_event())["decisions"]) == 2


def test_a_foreign_event_calls_no_service(aws: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    event = copy.deepcopy(changed(account="111111111111"))
    assert aws.invoke(event)["decision"] == "ignore"
    assert json.loads(capsys.readouterr().out)["decision"] == "ignore"


def test_a_manual_request_asks_codecommit_nothing(aws: Aws) -> None:
    aws.models(FLIGHTS)
    event = {"source": "pushline.manual", "detail": {"model": "flight_delay", "reason": "try again"}}
    (start,) = decide(Manual("flight_delay", "try again", "", "request-1"), [FLIGHTS], None)
    aws.start(start)
    (made,) = aws.invoke(event)["decisions"]
    assert (made["trigger"], made["as_of"]) == ("manual", "none")


def test_a_throttled_call_fails_the_invocation_so_that_lambda_repeats_it(aws: Aws) -> None:
    aws.stubs["ssm"].add_client_error("get_parameters_by_path", "ThrottlingException")
    with pytest.raises(Exception, match="ThrottlingException"):
        handler.handle(push_event(), SimpleNamespace(aws_request_id="r"))


def test_a_missing_environment_variable_fails_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPOSITORY_ARN", raising=False)
    with pytest.raises(KeyError, match="REPOSITORY_ARN"):
        handler.handle(push_event(), SimpleNamespace(aws_request_id="r"))
