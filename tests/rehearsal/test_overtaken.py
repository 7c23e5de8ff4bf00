"""Two retrainings at once, in the running rehearsal: the deployed state machine's last steps, role and registry.

The jobs before them are left out, and each execution waits where the test lets it go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from rehearsal import assembly as assemblies
from rehearsal import audit
from tests.conftest import Assembly
from tests.rehearsal.daemon import running
from tests.rehearsal.deployed_door import only
from tests.rehearsal.test_guardrails import TRAINING_STACK, Deployed
from tests.rehearsal.waiting import until
from tests.stacks.test_retrain_workflow import REQUEST

STACKS = ("Pushline-Foundation", "Pushline-Network-Training", "Pushline-Repository", TRAINING_STACK)
GROUP = "flight-delay"
BEFORE_THE_LOOK, AFTER_THE_LOOK = "Decide", "Register"
OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, assembly: Assembly) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("overtaken")
    with running(folder / "state") as cloud:
        assemblies.deploy(cloud, only(assembly.path, folder / "cdk.out", STACKS), Console(quiet=True))
        yield Deployed(cloud)


class Halting:
    """The state machine from its decision on, which waits before one of its states until it is let go."""

    def __init__(self, deployed: Deployed, before: str) -> None:
        self.deployed, self.before, self.states = deployed, before, deployed.cloud.client("stepfunctions")
        self.activity = self.states.create_activity(name=f"before-{before}")["activityArn"]
        machine = deployed.machine()
        made = self.states.create_state_machine(name=f"halting-{before}", roleArn=machine["roleArn"],
                                                definition=json.dumps(self._definition(machine)))  # fmt: skip
        self.machine = str(made["stateMachineArn"])

    def _definition(self, machine: dict[str, Any]) -> dict[str, Any]:
        definition: dict[str, Any] = json.loads(machine["definition"])
        text = json.dumps(definition["States"]).replace(f'"Next": "{self.before}"', '"Next": "Halt"')
        states = json.loads(text)
        # What the states before have found out.
        known = {**states["HasReason"]["Assign"], "feature_run": "jr_1", "model_data": "s3://none/model.tar.gz",
                 "training_job_arn": "arn:aws:sagemaker:us-east-1:000000000000:training-job/x",
                 "evaluation": {"rows": 9, "challenger": {"auc": 0.75, "log_loss": 0.5}, "champion": None},
                 }  # fmt: skip
        first = "Halt" if self.before == BEFORE_THE_LOOK else BEFORE_THE_LOOK
        states["Know"] = {"Type": "Pass", "Assign": known, "Next": first}
        states["Halt"] = {"Type": "Task", "Resource": self.activity, "Arguments": {}, "Next": self.before}
        return {**definition, "StartAt": "Know", "States": states}

    def start(self, commit: str) -> tuple[str, str]:
        """The execution, once it waits, and what lets it go on."""
        execution = self.deployed.start(self.machine, {**REQUEST, "commit": commit})
        token = until(lambda: self.states.get_activity_task(activityArn=self.activity).get("taskToken"),
                      lambda: f"it does not wait: {self.deployed.end(execution)}")  # fmt: skip
        return execution, str(token)

    def end(self, started: tuple[str, str]) -> list[str]:
        """Let it go on to its end; the reasons for its verdict."""
        execution, token = started
        self.states.send_task_success(taskToken=token, output="{}")
        ended = self.deployed.end(execution)
        assert ended["status"] == "SUCCEEDED", ended.get("cause")
        return list(json.loads(ended["output"])["reasons"])


def newest(deployed: Deployed, count: int) -> list[dict[str, Any]]:
    """So many of the newest versions, in the order of their registration."""
    sagemaker = deployed.cloud.client("sagemaker")
    listed = sagemaker.list_model_packages(ModelPackageGroupName=GROUP, SortBy="CreationTime", MaxResults=count)
    return [sagemaker.describe_model_package(ModelPackageName=found["ModelPackageArn"])
            for found in listed["ModelPackageSummaryList"]][::-1]  # fmt: skip


@pytest.fixture(scope="module")
def early(deployed: Deployed) -> Halting:
    return Halting(deployed, BEFORE_THE_LOOK)


@pytest.fixture(scope="module")
def late(deployed: Deployed) -> Halting:
    return Halting(deployed, AFTER_THE_LOOK)


def test_who_began_first_and_comes_last_is_registered_as_rejected(deployed: Deployed, early: Halting) -> None:
    older, newer = early.start(OLD), early.start(NEW)
    assert not any("overtaken" in reason for reason in early.end(newer))
    reason = early.end(older)[0]
    first, second = newest(deployed, 2)
    assert (first["ModelApprovalStatus"], second["ModelApprovalStatus"]) == ("PendingManualApproval", "Rejected")
    assert reason.endswith(f"of commit bbbbbbbb, which began later and has registered version "
                           f"{first['ModelPackageVersion']}")  # fmt: skip
    assert "ApprovalDescription" not in second, "it was never anything else"


def test_who_began_first_and_comes_first_is_in_nobodys_way(deployed: Deployed, early: Halting) -> None:
    older, newer = early.start(OLD), early.start(NEW)
    assert not any("overtaken" in reason for started in (older, newer) for reason in early.end(started))
    versions = newest(deployed, 2)
    assert [found["ModelApprovalStatus"] for found in versions] == ["PendingManualApproval"] * 2
    first, second = (found["CustomerMetadataProperties"]["began"] for found in versions)
    assert first < second


def test_two_that_have_looked_already_are_told_apart_once_more(deployed: Deployed, late: Halting) -> None:
    older, newer = late.start(OLD), late.start(NEW)
    assert not any("overtaken" in reason for reason in late.end(newer))
    reason = late.end(older)[0]
    first, second = newest(deployed, 2)
    assert (first["ModelApprovalStatus"], second["ModelApprovalStatus"]) == ("PendingManualApproval", "Rejected")
    assert second["ApprovalDescription"] == reason
    assert second["CustomerMetadataProperties"]["commit"] == OLD


def test_nothing_was_denied(deployed: Deployed) -> None:
    assert list(audit.read(deployed.cloud.state_dir, denied=True)) == []
