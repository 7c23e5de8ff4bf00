"""Reads what SageMaker's data capture wrote: JSON lines with a request, its answer and when they were made.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture-endpoint.html
"""

from __future__ import annotations

import base64
import csv
import io
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

MAXIMUM_REQUESTS = 20_000
"""More than this is sampled, evenly over all that was captured."""
SAMPLE_ID = "pushline-sample"
"""The inference id of the sample requests that releases send, which nobody asked."""
_SEED = 0

Read = Callable[[Any, str], Any]
Predict = Callable[[pd.DataFrame], Any]


@dataclass
class Captured:
    """The rows of each request with the moment it was answered, oldest first; `unreadable` says why of the others."""

    requests: list[tuple[str, pd.DataFrame]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def rows(self) -> pd.DataFrame:
        """All rows in one frame."""
        frames = [rows for _, rows in self.requests]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    @property
    def moments(self) -> list[str]:
        """For each row, when it was answered."""
        return [moment for moment, rows in self.requests for _ in range(len(rows))]


def read_captured(folder: Path, read: Read) -> Captured:
    """Every request below `folder` but the platform's own samples; `read` is the model's own input_fn."""
    found = Captured()
    for line in sampled(lines_of(folder), MAXIMUM_REQUESTS):
        try:
            record = json.loads(line)
            if record["eventMetadata"].get("inferenceId") == SAMPLE_ID:
                continue
            asked = record["captureData"]["endpointInput"]
            found.requests.append((moment(record), pd.DataFrame(read(content(asked), kind(asked)))))
        except Exception as error:  # a model's input_fn may raise anything
            found.unreadable.append(f"{type(error).__name__}: {error}")
    found.requests.sort(key=lambda request: request[0])
    return found


def of_the_same_columns(captured: Captured, wanted: Iterable[str]) -> Captured:
    """Without the days that know nothing of a `wanted` column that the newest day has: another version's requests."""
    days: dict[str, set[str]] = {}
    for when, rows in captured.requests:
        days.setdefault(when[:10], set()).update(map(str, rows.columns))
    needed = days[max(days)] & set(wanted) if days else set()
    kept = [request for request in captured.requests if needed <= days[request[0][:10]]]
    return Captured(kept, captured.unreadable)


def predicted(captured: Captured, predict: Predict) -> list[float]:
    """The predictions for all rows, in their order; frames alike in columns and types are asked together."""
    alike: dict[Any, list[int]] = {}
    for number, (_, rows) in enumerate(captured.requests):
        alike.setdefault((tuple(rows.columns), tuple(map(str, rows.dtypes))), []).append(number)
    found: dict[int, list[float]] = {}
    for numbers in alike.values():
        frames = [captured.requests[number][1] for number in numbers]
        values, begin = predict(pd.concat(frames, ignore_index=True)), 0
        for number, frame in zip(numbers, frames, strict=True):
            found[number], begin = [float(value) for value in values[begin : begin + len(frame)]], begin + len(frame)
    return [value for number in range(len(captured.requests)) for value in found[number]]


def lines_of(folder: Path) -> Iterator[str]:
    """Every captured record below the folder, as JSON."""
    for file in sorted(folder.rglob("*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            yield from (line for line in lines if line.strip())


def sampled(lines: Iterator[str], most: int) -> list[str]:
    """At most `most` lines, each with the same chance, in one pass."""
    chance, kept = random.Random(_SEED), []  # noqa: S311 - a sample, no secret
    for number, line in enumerate(lines):
        if number < most:
            kept.append(line)
        elif (place := chance.randint(0, number)) < most:
            kept[place] = line
    return kept


def moment(record: dict[str, Any]) -> str:
    """When it was answered (ISO 8601, UTC)."""
    return str(record["eventMetadata"]["inferenceTime"])


def kind(part: dict[str, Any]) -> str:
    """The content type of a request or an answer."""
    return str(part.get("observedContentType") or "application/json")


def content(part: dict[str, Any]) -> str:
    """A request or an answer as text."""
    text = str(part["data"])
    return base64.b64decode(text).decode("utf-8") if part.get("encoding") == "BASE64" else text


def predictions(part: dict[str, Any]) -> list[float]:
    """The first number of each prediction: CSV lines, a list, or `{"predictions": […]}`."""
    text = content(part)
    if kind(part).startswith("text/csv"):
        return [float(row[0]) for row in csv.reader(io.StringIO(text)) if row]
    found = json.loads(text)
    found = found.get("predictions", []) if isinstance(found, dict) else found
    return [float(value[0] if isinstance(value, list) else value) for value in found]
