"""Serving: flights as JSON or CSV -> the probability that each arrives more than 15 minutes late.

JSON is one flight (an object), several (an array) or {"instances": [...]}. CSV has a header, or its values are in
the order of `encoding.FIELDS`. The schedule is required; an unknown plane or unknown weather is left out or empty.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from model_code.flight_delay.encoding import CATEGORIES, FIELDS, REQUIRED, Columns, Encoding
from model_code.flight_delay.train import ENCODING_FILE, MODEL_FILE

Scores = npt.NDArray[np.float32]
Row = Mapping[str, Any]

_TEXT = {"flight_date", *CATEGORIES}


class Model(NamedTuple):
    """The trees and the encoding they were trained under."""

    booster: xgb.Booster
    encoding: Encoding


def model_fn(model_dir: str) -> Model:
    """Load what train.py wrote."""
    folder = Path(model_dir)
    booster = xgb.Booster(params={"nthread": 1}, model_file=folder / MODEL_FILE)
    return Model(booster, Encoding.load(folder / ENCODING_FILE))


def input_fn(body: str | bytes, content_type: str = "application/json") -> dict[str, list[Any]]:
    """The request as columns; raises ValueError saying which row and field is wrong."""
    text = body.decode() if isinstance(body, (bytes, bytearray)) else body
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in _READERS:
        raise ValueError(f"Content type {content_type!r} is not supported: send {' or '.join(_READERS)}")
    rows = [_checked(number, row) for number, row in enumerate(_READERS[kind](text), start=1)]
    if not rows:
        raise ValueError("The request holds no flight")
    return {name: [row.get(name) for row in rows] for name in FIELDS}


def predict_fn(columns: Columns, model: Model) -> Scores:
    """The probability of being late, row by row; `columns` may be a data frame that also holds other columns."""
    return np.asarray(model.booster.inplace_predict(model.encoding.matrix(columns), validate_features=False))


def output_fn(scores: Scores, accept: str = "application/json") -> tuple[str, str]:
    """The probabilities in the wanted format, and that format's content type."""
    wanted = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    if "text/csv" in wanted and "application/json" not in wanted:
        return "".join(f"{score:.6f}\n" for score in scores), "text/csv"
    if not {"application/json", "application/*", "*/*", ""} & set(wanted):
        raise ValueError(f"Cannot answer with {accept!r}: accept application/json or text/csv")
    return json.dumps({"predictions": [round(float(score), 6) for score in scores]}), "application/json"


def _json_rows(text: str) -> list[Any]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"The body is not JSON: {error}") from None
    if isinstance(document, dict):
        document = document.get("instances", [document])
    if not isinstance(document, list):
        raise ValueError(f"Expected a flight or a list of flights, found {type(document).__name__}")
    return document


def _csv_rows(text: str) -> Iterable[Row]:
    lines = [line for line in csv.reader(io.StringIO(text)) if line]
    names = lines.pop(0) if lines and set(lines[0]) & set(FIELDS) else FIELDS
    for number, line in enumerate(lines, start=1):
        if len(line) != len(names):
            raise ValueError(f"Row {number} has {len(line)} values, expected {len(names)}: {', '.join(names)}")
        yield {name: _cell(name, value) for name, value in zip(names, line, strict=True)}


def _cell(name: str, value: str) -> str | float | None:
    if not value:
        return None
    try:
        return value if name in _TEXT else float(value)
    except ValueError:
        return value  # _checked names the row


def _checked(number: int, row: Any) -> Row:
    if not isinstance(row, Mapping):
        raise ValueError(f"Row {number} is not an object but {type(row).__name__}")
    if unknown := sorted(set(row) - set(FIELDS)):
        raise ValueError(f"Row {number} has unknown fields: {', '.join(unknown)}; known are {', '.join(FIELDS)}")
    if missing := [name for name in REQUIRED if row.get(name) is None]:
        raise ValueError(f"Row {number} lacks {', '.join(missing)}")
    for name, value in row.items():
        if value is not None and not isinstance(value, str if name in _TEXT else (int, float)):
            raise ValueError(f"Row {number}: {name} must be {'text' if name in _TEXT else 'a number'}, found {value!r}")
    return row


_READERS = {"application/json": _json_rows, "text/csv": _csv_rows}
