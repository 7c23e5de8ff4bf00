"""Fifty models: the app synthesizes, no stack grows with their number, and the quotas that are too small are known."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from contract.new import write_model
from tests.conftest import ROOT, Assembly

MODELS = 50
MOST_RESOURCES = 250
RULES, ROLES, STACKS = "rules on the default event bus", "IAM roles", "CloudFormation stacks"
KINDS = {
    "AWS::IAM::Role": ROLES, "AWS::Events::EventBus": "event buses", "AWS::Logs::LogGroup": "log groups",
    "AWS::Glue::SecurityConfiguration": "Glue security configurations", "AWS::CodePipeline::Pipeline": "pipelines",
    "AWS::StepFunctions::StateMachine": "state machines", "AWS::Scheduler::Schedule": "schedules",
    "AWS::CloudWatch::Alarm": "alarms", "AWS::SSM::Parameter": "parameters", "AWS::Logs::ResourcePolicy": "policies",
}  # fmt: skip
"""What an account has a quota for that models use up; rules and stacks are counted apart."""
QUOTAS = {
    RULES: 300, ROLES: 1000, STACKS: 2000, "event buses": 100, "Glue security configurations": 250, "pipelines": 1000,
    "state machines": 100_000, "schedules": 1_000_000, "log groups": 1_000_000, "alarms": 5000, "parameters": 10_000,
    "policies": 10,
}  # fmt: skip
"""Of an account and region by default, of IAM an account's; from each service's page on quotas."""
FEWEST_RULES = 100
"""Their quota in af-south-1 and eu-south-1."""
FAR = 10
"""A quota that leaves room for so many times MODELS is not worth telling."""
PAGE = (ROOT / "docs" / "runbook.md").read_text()


def synthesized(root: Path, models: int) -> Assembly:
    """The assembly of this app over a repository with so many models as `pushline new` writes them."""
    (root / "model_code").mkdir(parents=True)
    for number in range(models):
        write_model(root, f"model_{number:02}")
    for name in ("app.py", "cdk.json"):
        shutil.copy(ROOT / name, root)  # the app takes its models from beside itself
    variables = {**os.environ, "CDK_OUTDIR": str(root / "cdk.out"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, root / "app.py"], cwd=root, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Assembly(root / "cdk.out")


def sizes(assembly: Assembly) -> dict[str, int]:
    return {stack: len(template["Resources"]) for stack, template in assembly.templates.items()}


@pytest.fixture(scope="module")
def fifty(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    return synthesized(tmp_path_factory.mktemp("many"), MODELS)


@pytest.fixture(scope="module")
def many(fifty: Assembly) -> dict[str, int]:
    return sizes(fifty)


def test_every_model_has_its_stacks_and_none_passes_the_limit(many: dict[str, int]) -> None:
    titles = {stack.split("-")[0] for stack in many} - {"Pushline"}
    assert len(titles) == MODELS
    assert max(many.values()) < MOST_RESOURCES


def test_no_stack_grows_with_the_number_of_models(many: dict[str, int], tmp_path: Path) -> None:
    alone = sizes(synthesized(tmp_path / "one", 1))
    assert alone
    assert {stack: many[stack] for stack in alone} == alone
    kinds = {(stack.partition("-")[2], size) for stack, size in many.items() if not stack.startswith("Pushline-")}
    assert len(kinds) == len({kind for kind, _ in kinds})


Accounts = dict[str, Counter[str]]
"""How much of what each account has, by its number."""


def counted(assembly: Assembly, title: str = "") -> Accounts:
    """What an assembly puts into each account: all of it, or what the stacks called `<title>-…` do."""
    artifacts = json.loads((assembly.path / "manifest.json").read_text())["artifacts"]
    accounts: Accounts = {}
    for stack, template in assembly.templates.items():
        found = accounts.setdefault(artifacts[stack]["environment"].split("/")[2], Counter())
        if stack.startswith(f"{title}-" if title else ""):
            found.update([STACKS, *map(kind, template["Resources"].values())])
    return accounts


def kind(resource: dict[str, Any]) -> str:
    """What a resource counts as, of what there is a quota for."""
    if resource["Type"] == "AWS::Events::Rule" and "EventBusName" not in resource["Properties"]:
        return RULES
    return KINDS.get(resource["Type"], "")


def fitting(what: str, shared: Accounts, model: Accounts) -> int | None:
    """How many models the default quotas of all accounts leave room for; None if a model takes nothing of it."""
    return min(((QUOTAS[what] - shared[account][what]) // own[what] for account, own in model.items() if own[what]),
               default=None)  # fmt: skip


def test_fifty_models_take_fifty_times_what_one_takes(fifty: Assembly) -> None:
    (found,), (shared,), (one,) = (counted(fifty, title).values() for title in ("", "Pushline", "Model00"))
    assert found[ROLES] > found[RULES] > MODELS
    for what in QUOTAS:
        assert found[what] == shared[what] + MODELS * one[what], what


def test_the_runbook_tells_every_quota_that_models_come_near_to(
    fifty: Assembly, otherwise: dict[str, Assembly]
) -> None:
    """Its table, figure by figure; what is not in it has room for ten times as many."""
    (found,), (one,) = counted(fifty).values(), counted(fifty, "Model00").values()
    accounts = otherwise["accounts"]
    rows = []
    for what, quota in QUOTAS.items():
        together = fitting(what, counted(fifty, "Pushline"), counted(fifty, "Model00"))
        apart = fitting(what, counted(accounts, "Pushline"), counted(accounts, "FlightDelay"))
        if any(fit is not None and fit < FAR * MODELS for fit in (together, apart)):
            figures = (one[what], found[what], quota, together, apart)
            rows.append(f"| {what} | {' | '.join('-' if it is None else f'{it:,}' for it in figures)} |")
    section = PAGE.partition("## Quotas to raise")[2].partition("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("| ")][1:] == rows
    assert f"which is {(FEWEST_RULES - found[RULES]) // one[RULES] + MODELS} models" in section
