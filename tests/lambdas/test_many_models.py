"""Pushes that touch many models: side by side, within the APIs' pages and the invocation's time."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from lambdas.start_retraining import handler
from tests.lambdas.retraining_world import (
    HOUR,
    NOON,
    Params,
    World,
    modified,
    pipeline,
    push_event,
    reasons,
)


def test_starts_run_side_by_side_and_are_told_in_the_models_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet, start = threading.Barrier(4, timeout=30), world.start_pipeline_execution

    def together(**given: Any) -> Params:
        meet.wait()
        return start(**given)

    monkeypatch.setattr(world, "start_pipeline_execution", together)
    models(world, 16)
    made = world.invoke(push_event())
    assert [row["model"] for row in made] == list(world.models)
    assert {row["decision"] for row in made} == {"start"}


def test_refused_and_throttled_starts_of_some_models_hurt_no_other_of_two_hundred(world: World) -> None:
    models(world, 200)
    throttled, gone = "ThrottlingException", "PipelineNotFoundException"
    for number, code in ((7, throttled), (90, gone), (150, throttled)):
        world.refuse[f"StartPipelineExecution {pipeline(f'model_{number}')}"] = [code]
    with pytest.raises(handler.Unfinished, match=r"^model_90: "):
        world.invoke(push_event())
    assert len([name for name in world.models if world.started(name)]) == 197
    assert len(world.schedules) == 2
    assert reasons(world.invoke(push_event(), "repeated-by-lambda")).keys() == {"model_90"}
    world.pass_time(NOON + HOUR)
    assert [len(world.started(name)) for name in world.models] == [1] * 200


def test_what_does_not_fit_into_the_invocation_waits_instead_of_being_lost(world: World) -> None:
    models(world, 50)
    world.left = 100
    made = world.invoke(push_event())
    assert {row["decision"] for row in made} == {"defer"}
    assert all("this invocation is nearly over" in row["reason"] for row in made)
    assert world.messages == []
    world.left = 300
    world.pass_time(NOON + HOUR)
    assert [len(world.started(name)) for name in world.models] == [1] * 50


def models(world: World, count: int) -> None:
    """So many models, and a push that changes each."""
    for number in range(count - 1):
        world.deploy(f"model_{number}")
    world.differences = modified(*(f"model_code/{name}/train.py" for name in world.models))


def test_a_thousand_files_over_two_hundred_models_stay_within_the_apis_pages(world: World) -> None:
    for number in range(199):
        world.deploy(f"model_{number}")
    names = list(world.models)
    world.differences = modified(*(f"model_code/{names[number % 200]}/file_{number}.py" for number in range(1000)))
    assert len(world.invoke(push_event())) == 200
    assert world.calls == {"GetParametersByPath": 20, "GetBranch": 1, "GetCommit": 1, "GetDifferences": 10,
                           "GetObject": 1, "PutObject": 1,
                           "ListPipelineExecutions": 200, "StartPipelineExecution": 200}  # fmt: skip


def test_models_are_read_while_the_repository_is_asked_what_changed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet = threading.Barrier(2, timeout=30)
    for name in ("get_parameters_by_path", "get_differences"):
        monkeypatch.setattr(world, name, _after(meet, getattr(world, name)))
    assert world.invoke(push_event())[0]["decision"] == "start"


def _after(meet: threading.Barrier, ask: Any) -> Any:
    def answer(**given: Any) -> Params:
        meet.wait()
        made: Params = ask(**given)
        return made

    return answer
