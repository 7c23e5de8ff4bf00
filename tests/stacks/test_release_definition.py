"""The reconciler's definition itself: what it reads, what it may say and where each of its states leads."""

from __future__ import annotations

import json
from typing import Any

from stacks.deployment import Deployment
from stacks.release_workflow import SUBSTITUTIONS, release_workflow
from tests.stacks.release_world import ENVIRONMENTS


@ENVIRONMENTS
def test_it_never_reads_what_started_it(deployment: Deployment) -> None:
    text = json.dumps(release_workflow(deployment))

    assert "$states.input" not in text
    assert "Execution.Input" not in text


@ENVIRONMENTS
def test_only_staging_can_approve(deployment: Deployment) -> None:
    approvals = [state for state in release_workflow(deployment)["States"].values()
                 if isinstance(arguments := state.get("Arguments"), dict)
                 and arguments.get("ModelApprovalStatus") == "Approved"]  # fmt: skip

    assert len(approvals) == (1 if deployment.approves else 0)


@ENVIRONMENTS
def test_every_state_is_reached_and_every_call_says_what_happens_when_it_fails(deployment: Deployment) -> None:
    definition = release_workflow(deployment)
    states: dict[str, dict[str, Any]] = definition["States"]
    reached, waiting = set(), [definition["StartAt"]]
    while waiting:
        if (name := waiting.pop()) not in reached:
            reached.add(name)
            waiting += _successors(states[name])

    assert reached == set(states)
    assert all(state["Catch"] for state in states.values() if state["Type"] == "Task")
    assert all(len(name) <= 80 for name in states), "the longest name Step Functions takes"


def _successors(state: dict[str, Any]) -> list[str]:
    rules = [*state.get("Choices", []), *state.get("Catch", []), state]
    return [rule["Next"] for rule in rules if "Next" in rule] + ([state["Default"]] if "Default" in state else [])


@ENVIRONMENTS
def test_what_cloudformation_fills_in_is_what_the_definition_leaves_open(deployment: Deployment) -> None:
    text = json.dumps(release_workflow(deployment))

    assert {name for name in ("UpdateRole", "Topic", "Group") if f"${{{name}}}" in text} == set(SUBSTITUTIONS)
    assert text == json.dumps(release_workflow(deployment))
