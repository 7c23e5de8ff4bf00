"""Asks an endpoint over plain HTTP, many rows at a time, and measures its answers against what became of them."""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from sklearn import metrics

from rehearsal.replay.plan import Refused

ROWS_A_REQUEST = 100
_TIMEOUT_SECONDS = 60.0
_PACKAGE = "x-rehearsal-model-package"
Numbers = Sequence[float]

METRICS: dict[str, Callable[[Numbers, Numbers], float]] = {
    "accuracy": lambda truth, found: metrics.accuracy_score(truth, [value >= 0.5 for value in found]),
    "auc": metrics.roc_auc_score,
    "brier": metrics.brier_score_loss,
    "f1": lambda truth, found: metrics.f1_score(truth, [value >= 0.5 for value in found]),
    "log_loss": metrics.log_loss,
    "mae": metrics.mean_absolute_error,
    "mse": metrics.mean_squared_error,
    "r2": metrics.r2_score,
    "rmse": metrics.root_mean_squared_error,
}
"""The metrics that the platform's own evaluation knows, by the same library in the same version as in the image."""


@dataclass(frozen=True)
class Answers:
    """One number per row, and how many rows each version answered."""

    predictions: list[float]
    versions: dict[str, int]


def check_metric(name: str) -> None:
    if name not in METRICS:
        raise Refused(f"a replay can't measure {name!r} itself; it can {', '.join(METRICS)}")


def measure(metric: str, labels: Numbers, answers: Answers) -> float:
    """The metric of the answers; Refused where it has no value, such as an AUC of one outcome only."""
    problem = "it has no value"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns and answers NaN, which is refused below
        try:
            value = float(METRICS[metric](labels, answers.predictions))
        except ValueError as error:
            value, problem = math.nan, str(error)
    if not math.isfinite(value):
        raise Refused(f"{metric} can't be measured on these {len(labels)} rows: {problem}")
    return value


def ask(url: str, requests: Sequence[dict[str, Any]]) -> Answers:
    """Send every row; Refused if one is not answered."""
    predictions: list[float] = []
    versions: Counter[str] = Counter()
    with httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
        for rows in _batches(requests):
            answer = _post(client, url, rows)
            found = _numbers(answer.text)
            if len(found) != len(rows):
                raise Refused(f"{url} answered {len(found)} predictions to {len(rows)} rows")
            predictions += found
            versions[answer.headers.get(_PACKAGE, "").rpartition("/")[2]] += len(rows)
    return Answers(predictions, dict(versions))


def _batches(requests: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    for begin in range(0, len(requests), ROWS_A_REQUEST):
        yield requests[begin : begin + ROWS_A_REQUEST]


def _post(client: httpx.Client, url: str, rows: Sequence[dict[str, Any]]) -> httpx.Response:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    try:
        answer = client.post(f"{url}/invocations", content=json.dumps(list(rows)), headers=headers)
    except httpx.HTTPError as problem:
        raise Refused(f"{url} does not answer: {type(problem).__name__}: {problem}") from None
    if not answer.is_success:
        raise Refused(f"{url} refused a request: {answer.status_code} {answer.text[:500]}")
    return answer


def _numbers(text: str) -> list[float]:
    """The first number of each prediction: a list, or an object's `predictions`."""
    document = json.loads(text)
    found = document.get("predictions", []) if isinstance(document, dict) else document
    return [float(value[0] if isinstance(value, list) else value) for value in found]
