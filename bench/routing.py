"""How long start_retraining itself thinks about a push: 1,000 changed files, 200 models, 20 executions of each."""

from __future__ import annotations

import datetime as dt
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from lambdas.start_retraining.decide import Decision, Limits, Run, decide
from lambdas.start_retraining.events import Push, Request
from lambdas.start_retraining.route import Changed, Gone, Model, concerned

FILES, MODELS, EXECUTIONS, RUNS = 1000, 200, 20, 5
NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
LIMITS = Limits(20, dt.timedelta(minutes=15), dt.timedelta(hours=6), dt.timedelta(days=1))


def measure() -> Iterator[tuple[str, str, float]]:
    """Rows for the floor (parsing what the APIs answer), for routing, and for deciding; ratio = step / floor."""
    answers = json.dumps({"differences": [{"changeType": "M", "afterBlob": {"path": path}} for path in _paths()],
                          "models": [{"watch": model.watch} for model in _models()]})  # fmt: skip
    push, models, changed = Push("a" * 40, "b" * 40, NOW), _models(), Changed(frozenset(_paths()))
    runs = [Run(str(n), NOW - n * dt.timedelta(hours=1), "Succeeded", n % 3 == 0) for n in range(1, EXECUTIONS + 1)]
    requests = concerned(push, models, changed, gone=())
    assert len(requests) == MODELS
    floor = _median(lambda: json.loads(answers))
    yield "parsing the APIs' answers (floor)", _shown(floor), 1.0
    routing = _median(lambda: concerned(push, models, changed, gone=()))
    yield "routing", _shown(routing), routing / floor
    deciding = _median(lambda: _decided(requests, models, runs))
    yield "deciding on each model", _shown(deciding), deciding / floor


def _decided(requests: list[Request | Gone], models: list[Model], runs: list[Run]) -> list[Decision]:
    by_name = {model.name: model for model in models}
    return [decide(request, by_name[request.model], runs, LIMITS, NOW)
            for request in requests if isinstance(request, Request)]  # fmt: skip


def _models() -> list[Model]:
    return [Model(f"model_{number}", f"pushline-model-{number}", (f"model_code/model_{number}", "model_code/shared"))
            for number in range(MODELS)]  # fmt: skip


def _paths() -> list[str]:
    return [f"model_code/model_{number % MODELS}/package/file_{number}.py" for number in range(FILES)]


def _median(work: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(RUNS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _shown(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
