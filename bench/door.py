"""How long start_retraining takes for a push of 1,000 files in a repository of 200 models, its calls to AWS included.

Nothing is called: each answer comes after 20 ms, about what AWS takes within a region.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import boto3

from lambdas.start_retraining.decide import Limits
from lambdas.start_retraining.door import Door, Setting
from lambdas.start_retraining.events import Push, Watched

FILES, MODELS, RUNS = 1000, 200, 3
ANSWER_SECONDS = 0.02
NEW, OLD = "a" * 40, "b" * 40
NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
ACCOUNT, REGION = "000000000000", "us-east-1"
LIMITS = Limits(20, dt.timedelta(minutes=15), dt.timedelta(hours=6), dt.timedelta(days=1))
SETTING = Setting(Watched(f"arn:aws:codecommit:{REGION}:{ACCOUNT}:pushline", "main", "data", ACCOUNT), LIMITS,
                  "/pushline/models", "topic", "group", "role", "function", ("artifacts", "routed.json"))  # fmt: skip
Params = Mapping[str, Any]


def measure() -> Iterator[tuple[str, str, float]]:
    """Rows for the calls of a push to one model, one after the other (floor), for that push, and for one to all."""
    for touched in (1, MODELS):
        account = Account(touched)
        seconds = statistics.median(account.route() for _ in range(RUNS))
        if touched == 1:
            calls = sum(account.calls.values()) // RUNS
            floor = calls * ANSWER_SECONDS
            yield f"{calls} calls one after the other (floor)", _shown(floor), 1.0
        what = "one model" if touched == 1 else f"all {MODELS}"
        yield f"a push that concerns {what}", _shown(seconds), seconds / floor


class Account:
    """Answers as AWS does where a push changes files of so many models, and counts what it was asked."""

    def __init__(self, touched: int) -> None:
        self.calls: Counter[str] = Counter()
        self._client = cache(self._made)
        self._files = [f"model_code/model_{number % touched}/file_{number}.py" for number in range(FILES)]

    def route(self) -> float:
        """The seconds that an invocation takes, with clients that are there already."""
        for service in ("ssm", "codecommit", "codepipeline", "scheduler", "s3", "sns"):
            self._client(service)
        door = Door(SETTING, self._client, NOW, set(), lambda: 300.0)
        began = time.perf_counter()
        assert all(made.execution for made in door.answer(Push(NEW, OLD, NOW)))
        return time.perf_counter() - began

    def _made(self, service: str) -> Any:
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": REGION}
        client: Any = boto3.client(service, **keys)
        client._make_api_call = self._answer
        return client

    def _answer(self, operation: str, params: Params) -> Params:
        self.calls[operation] += 1
        time.sleep(ANSWER_SECONDS)
        match operation:
            case "GetParametersByPath":
                value = {"pipeline": "p", "on_new_data": True, "on_drift": True, "cool_down_hours": 0}
                found = [{"Name": f"/pushline/models/model_{number}",
                          "Value": json.dumps({**value, "watch": [f"model_code/model_{number}"]})}
                         for number in range(MODELS)]  # fmt: skip
                return _page("Parameters", found, 10, params)
            case "GetDifferences":
                return _page("differences", [{"afterBlob": {"path": path}} for path in self._files], 100, params)
            case "GetBranch":
                return {"branch": {"commitId": NEW}}
            case "GetObject":
                return {"Body": io.BytesIO(json.dumps({"commit": OLD}).encode())}
            case "ListPipelineExecutions":
                return {"pipelineExecutionSummaries": []}
            case "StartPipelineExecution":
                return {"pipelineExecutionId": "started"}
        return {}


def _page(name: str, rows: list[Any], size: int, params: Params) -> Params:
    start = int(params.get("NextToken", 0))
    return {name: rows[start : start + size], **({"NextToken": str(start + size)} if start + size < len(rows) else {})}


def _shown(seconds: float) -> str:
    return f"{seconds:.2f} s"
