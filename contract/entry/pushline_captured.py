"""Reads what SageMaker's data capture wrote: JSON lines with a request, its answer and when they were made.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture-endpoint.html
"""

from __future__ import annotations

import base64
import csv
import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

MAXIMUM_REQUESTS = 20_000
"""More than this is sampled, evenly over all that was captured."""
_SEED = 0

Read = Callable[[Any, str], Any]


@dataclass
class Captured:
    """The requests' rows and the predictions that were answered; `unreadable` says of what was neither, why."""

    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    predictions: list[float] = field(default_factory=list)
    requests: int = 0
    unreadable: list[str] = field(default_factory=list)


def read_captured(folder: Path, since: str, read: Read) -> Captured:
    """Everything below `folder` since then (ISO 8601, UTC); `read` is the model's own input_fn."""
    found, frames = Captured(), []
    for line in sampled(lines_of(folder), MAXIMUM_REQUESTS):
        try:
            record = json.loads(line)
            if moment(record) < since:
                continue
            found.requests += 1
            captured = record["captureData"]
            frames.append(pd.DataFrame(read(content(captured["endpointInput"]), kind(captured["endpointInput"]))))
            if "endpointOutput" in captured:
                found.predictions += predictions(captured["endpointOutput"])
        except Exception as error:  # a model's input_fn may raise anything
            found.unreadable.append(f"{type(error).__name__}: {error}")
    if frames:
        found.rows = pd.concat(frames, ignore_index=True)
    return found


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
