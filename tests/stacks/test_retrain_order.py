"""An older retraining that goes on or is redriven: what it registers never stands above a newer one's version."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from contract import load_models
from stacks.retrain_order import LOOKED_AT
from stacks.retrain_workflow import retrain_workflow
from tests.conftest import ROOT
from tests.stacks.state_machine import Execution, TaskFailed, run
from tests.stacks.test_retrain_workflow import REQUEST, SETTINGS, filled

PACKAGE = "arn:aws:sagemaker:us-east-1:000000000000:model-package/flight-delay"
BEFORE, OLDER, NEWER = (f"2013-03-01T0{hour}:00:00.000Z" for hour in (5, 6, 7))
OLD, NEW = "a" * 40, "b" * 40
PASSED = {"rows": 100, "challenger": {"auc": 0.75, "log_loss": 0.5}, "champion": None}
Facts = dict[str, str]


@pytest.fixture(scope="module")
def definition() -> dict[str, Any]:
    (model,) = [found for found in load_models(ROOT, SETTINGS.guardrails) if found.name == "flight_delay"]
    return filled(retrain_workflow(model, SETTINGS.guardrails, vpc=True))


@dataclass
class Registry:
    """The model's versions, oldest first; `meanwhile` happens just before the next registration."""

    packages: list[dict[str, Any]] = field(default_factory=list)
    lineage: dict[str, Any] = field(default_factory=dict)
    minute: int = 0
    meanwhile: Callable[[], Any] = lambda: None

    def add(self, facts: Facts, status: str = "Approved") -> dict[str, Any]:
        self.minute += 1
        version = len(self.packages) + 1
        package = {"ModelPackageArn": f"{PACKAGE}/{version}", "ModelPackageVersion": version,
                   "CreationTime": f"2013-03-02T00:{self.minute:02}:00.000Z", "ModelApprovalStatus": status,
                   "CustomerMetadataProperties": facts}  # fmt: skip
        self.packages.append(package)
        return package

    def live(self) -> int:
        """What the reconcilers want: the highest version that may go live."""
        return max((found["ModelPackageVersion"] for found in self.packages
                    if found["ModelApprovalStatus"] in ("PendingManualApproval", "Approved")), default=0)  # fmt: skip

    def answers(self, evaluation: dict[str, Any]) -> dict[str, Any]:
        return {
            "FindChampion": {"ModelPackageSummaryList": []}, "BuildFeatures": {"Id": "jr_1"},
            "Train": {"TrainingJobArn": "arn:aws:sagemaker:us-east-1:000000000000:training-job/x",
                      "ModelArtifacts": {"S3ModelArtifacts": "s3://A/training/flight-delay/new/output/model.tar.gz"}},
            "ReadEvaluation": {"Body": json.dumps(evaluation)}, "FindNewer": self._list, "DescribeOne": self._describe,
            "WriteLineage": lambda given: self.lineage.update(given["Body"]), "Register": self._register,
            "Withdraw": self._update,
        }  # fmt: skip

    def _list(self, given: dict[str, Any]) -> dict[str, Any]:
        assert (given["SortBy"], given["SortOrder"]) == ("CreationTime", "Descending")
        return {"ModelPackageSummaryList": [
            {key: found[key] for key in ("ModelPackageArn", "ModelPackageVersion", "CreationTime")}
            for found in self.packages[::-1][:given["MaxResults"]]]}  # fmt: skip

    def _describe(self, given: dict[str, Any]) -> dict[str, Any]:
        return self.packages[int(given["ModelPackageName"].rpartition("/")[2]) - 1]

    def _register(self, given: dict[str, Any]) -> dict[str, Any]:
        self.meanwhile()
        return self.add(given["CustomerMetadataProperties"], given["ModelApprovalStatus"])

    def _update(self, given: dict[str, Any]) -> dict[str, Any]:
        package = self._describe({"ModelPackageName": given["ModelPackageArn"]})
        package["CustomerMetadataProperties"] |= given["CustomerMetadataProperties"]
        package |= {key: given[key] for key in ("ModelApprovalStatus", "ApprovalDescription")}
        return {}


def facts(began: str, commit: str = NEW) -> Facts:
    return {"began": began, "commit": commit}


def retrain(definition: dict[str, Any], registry: Registry, began: str, commit: str, **answers: Any) -> Execution:
    return run(definition, {**REQUEST, "commit": commit}, {**registry.answers(PASSED), **answers}, began=began)


def redriven(definition: dict[str, Any], registry: Registry, stopped: Execution, at: str) -> Execution:
    """AWS goes on at the state that was interrupted, with the variables and the start time of the execution."""
    again = {"Type": "Pass", "Assign": stopped.variables, "Next": at}
    states = {**definition["States"], "Redriven": again}
    return run({**definition, "StartAt": "Redriven", "States": states}, {}, registry.answers(PASSED), began=OLDER)


def test_what_an_older_retraining_registers_after_a_newer_one_is_rejected(definition: dict[str, Any]) -> None:
    registry = Registry()
    newer = retrain(definition, registry, NEWER, NEW)
    older = retrain(definition, registry, OLDER, OLD)
    assert (newer.status, newer.output["passed"]) == ("SUCCEEDED", True)
    assert (older.status, older.output["passed"]) == ("SUCCEEDED", False)
    assert [found["ModelApprovalStatus"] for found in registry.packages] == ["PendingManualApproval", "Rejected"]
    assert registry.live() == 1
    reason = "failed: overtaken by the retraining of commit bbbbbbbb, which began later and has registered version 1"
    assert older.output["reasons"][0] == registry.lineage["decision"]["reasons"][0] == reason
    assert registry.packages[1]["CustomerMetadataProperties"]["decision"].startswith(reason.replace(",", ""))
    assert reason in older.arguments["NotifyRefused"]["Message"]
    assert "Withdraw" not in older.states


def test_a_newer_retraining_registers_after_an_older_one_as_ever(definition: dict[str, Any]) -> None:
    registry = Registry()
    for began, commit in ((OLDER, OLD), (NEWER, NEW)):
        assert retrain(definition, registry, began, commit).output["passed"] is True
    assert registry.live() == 2
    assert [found["CustomerMetadataProperties"]["began"] for found in registry.packages] == [OLDER, NEWER]


def test_a_retraining_that_was_refused_or_came_late_itself_overtakes_as_well(definition: dict[str, Any]) -> None:
    registry = Registry()
    registry.add(facts("2013-03-01T08:00:00.000Z"), "Rejected")
    registry.add(facts(OLDER, OLD), "Rejected")
    assert retrain(definition, registry, NEWER, NEW).output["passed"] is False
    assert registry.live() == 0


def test_of_the_numbers_and_of_having_been_overtaken_both_are_told(definition: dict[str, Any]) -> None:
    registry = Registry()
    registry.add(facts(NEWER))
    worse = {"Body": json.dumps({"rows": 9, "challenger": {"auc": 0.75, "log_loss": 0.9}, "champion": None})}
    reasons = retrain(definition, registry, OLDER, OLD, ReadEvaluation=worse).output["reasons"]
    assert "overtaken" in reasons[0]
    assert any("guard log_loss 0.9" in reason for reason in reasons)


@pytest.mark.parametrize("at", ["BuildFeatures", "Decide", "WriteLineage", "Register"])
def test_a_redriven_retraining_is_as_old_as_it_was(definition: dict[str, Any], at: str) -> None:
    registry = Registry()
    stopped = retrain(definition, Registry(), OLDER, OLD, Register=TaskFailed("SageMaker.SageMakerException", "slow"))
    registry.add(facts(NEWER))
    execution = redriven(definition, registry, stopped, at)
    assert (execution.status, execution.output["passed"]) == ("SUCCEEDED", False)
    assert registry.live() == 1


def test_of_two_that_look_at_the_same_time_the_older_one_withdraws_what_it_registers_last(
    definition: dict[str, Any],
) -> None:
    registry = Registry()
    registry.meanwhile = lambda: registry.add(facts(NEWER), "PendingManualApproval")
    execution = retrain(definition, registry, OLDER, OLD)
    assert (execution.status, execution.output["passed"]) == ("SUCCEEDED", False)
    assert registry.live() == 1
    mine = registry.packages[1]
    assert mine["ApprovalDescription"] == registry.lineage["decision"]["reasons"][0]
    assert "which began later and has registered version 1" in mine["ApprovalDescription"]
    assert mine["CustomerMetadataProperties"]["decision"].startswith("failed: overtaken")
    assert registry.lineage["decision"]["passed"] is False
    assert "overtaken" in execution.arguments["NotifyRefused"]["Message"]


def test_of_two_that_look_at_the_same_time_the_newer_one_keeps_its_version(definition: dict[str, Any]) -> None:
    registry = Registry()
    registry.meanwhile = lambda: registry.add(facts(OLDER, OLD), "PendingManualApproval")
    assert retrain(definition, registry, NEWER, NEW).output["passed"] is True
    assert registry.live() == 2
    assert registry.packages[-1]["CustomerMetadataProperties"]["began"] == NEWER


@pytest.mark.parametrize("others", [
    (), ({},), ({"commit": NEW},), ({"began": BEFORE, "commit": NEW},), ({"began": OLDER, "commit": OLD}, {}),
])  # fmt: skip
def test_the_first_version_and_those_that_do_not_say_when_they_began_stop_nobody(
    definition: dict[str, Any], others: tuple[Facts, ...]
) -> None:
    registry = Registry()
    for other in others:
        registry.add(dict(other))
    assert retrain(definition, registry, OLDER, OLD).output["passed"] is True
    assert registry.live() == len(others) + 1
    assert registry.packages[-1]["CustomerMetadataProperties"]["began"] == OLDER


def test_a_version_that_people_registered_hides_no_newer_retraining(definition: dict[str, Any]) -> None:
    registry = Registry()
    registry.add(facts(NEWER))
    for _ in range(LOOKED_AT - 1):
        registry.add({})
    assert retrain(definition, registry, OLDER, OLD).output["passed"] is False


def test_what_was_registered_before_a_retraining_began_is_not_described(definition: dict[str, Any]) -> None:
    registry = Registry()
    registry.add(facts(BEFORE))["CreationTime"] = "2013-03-01T05:30:00.000Z"
    asked: list[Any] = []
    retrain(definition, registry, OLDER, OLD, DescribeOne=lambda given: asked.append(given) or registry.packages[-1])
    assert [given["ModelPackageName"] for given in asked] == [f"{PACKAGE}/2"]


@pytest.mark.parametrize("step", ["FindNewer", "DescribeOne", "Withdraw"])
def test_who_can_not_see_the_order_fails_and_says_so(definition: dict[str, Any], step: str) -> None:
    registry = Registry()
    registry.meanwhile = lambda: registry.add(facts(NEWER), "PendingManualApproval")
    answers = {step: TaskFailed("SageMaker.SageMakerException", "denied")}
    execution = retrain(definition, registry, OLDER, OLD, **answers)
    assert execution.status == "FAILED"
    told = execution.arguments["NotifyFailure"]["Message"]
    assert f"failed at {step.replace('DescribeOne', 'DescribeNewer')}." in told
    assert "reject" in told


@pytest.mark.parametrize(("state", "operation"), [
    ("FindNewer", "ListModelPackages"), ("DescribeOne", "DescribeModelPackage"), ("Withdraw", "UpdateModelPackage"),
])  # fmt: skip
def test_every_call_has_the_shape_its_api_takes(definition: dict[str, Any], state: str, operation: str) -> None:
    registry = Registry()
    registry.meanwhile = lambda: registry.add(facts(NEWER), "PendingManualApproval")
    given = retrain(definition, registry, OLDER, OLD).arguments[state]
    shape = botocore.session.get_session().get_service_model("sagemaker").operation_model(operation).input_shape
    assert ParamValidator().validate(given, shape).generate_report() == ""


def test_the_call_that_is_repeated_for_each_version_retries_throttling(definition: dict[str, Any]) -> None:
    each = definition["States"]["DescribeNewer"]["ItemProcessor"]["States"]["DescribeOne"]
    assert any("Throttling" in error for retry in each["Retry"] for error in retry["ErrorEquals"])
