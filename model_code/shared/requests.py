"""Serving's formats: rows as JSON or CSV in, predictions as JSON or CSV out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Row = Mapping[str, Any]

JSON, CSV = "application/json", "text/csv"


@dataclass(frozen=True)
class Form:
    """What a request holds: `row` says what one row is, `text` which fields are text; the others are numbers.

    JSON is one row (an object), several (an array) or {"instances": [...]}. CSV has a header, or its values are in
    the order of `fields`. A field that is not required is left out or empty when it is unknown.
    """

    row: str
    fields: tuple[str, ...]
    required: tuple[str, ...]
    text: frozenset[str]

    def columns(self, body: str | bytes, content_type: str) -> dict[str, list[Any]]:
        """The request as columns; raises ValueError saying which row and field is wrong."""
        text = body.decode() if isinstance(body, (bytes, bytearray)) else body
        kind = content_type.partition(";")[0].strip().lower()
        readers = {JSON: self._json_rows, CSV: self._csv_rows}
        if kind not in readers:
            raise ValueError(f"Content type {content_type!r} is not supported: send {' or '.join(readers)}")
        rows = [self._checked(number, row) for number, row in enumerate(readers[kind](text), start=1)]
        if not rows:
            raise ValueError(f"The request holds no {self.row}")
        return {name: [row.get(name) for row in rows] for name in self.fields}

    def _json_rows(self, text: str) -> list[Any]:
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"The body is not JSON: {error}") from None
        if isinstance(document, dict):
            document = document.get("instances", [document])
        if not isinstance(document, list):
            raise ValueError(f"Expected a list, or one {self.row} as an object, found {type(document).__name__}")
        return document

    def _csv_rows(self, text: str) -> Iterable[Row]:
        lines = [line for line in csv.reader(io.StringIO(text)) if line]
        names = lines.pop(0) if lines and set(lines[0]) & set(self.fields) else self.fields
        for number, line in enumerate(lines, start=1):
            if len(line) != len(names):
                raise ValueError(f"Row {number} has {len(line)} values, expected {len(names)}: {', '.join(names)}")
            yield {name: self._cell(name, value) for name, value in zip(names, line, strict=True)}

    def _cell(self, name: str, value: str) -> str | float | None:
        if not value:
            return None
        try:
            return value if name in self.text else float(value)
        except ValueError:
            return value  # _checked names the row

    def _checked(self, number: int, row: Any) -> Row:
        if not isinstance(row, Mapping):
            raise ValueError(f"Row {number} is not an object but {type(row).__name__}")
        if unknown := sorted(set(row) - set(self.fields)):
            known = ", ".join(self.fields)
            raise ValueError(f"Row {number} has unknown fields: {', '.join(unknown)}; known are {known}")
        if missing := [name for name in self.required if row.get(name) is None]:
            raise ValueError(f"Row {number} lacks {', '.join(missing)}")
        for name, value in row.items():
            if value is not None and not isinstance(value, str if name in self.text else (int, float)):
                kind = "text" if name in self.text else "a number"
                raise ValueError(f"Row {number}: {name} must be {kind}, found {value!r}")
        return row


def answer(predictions: npt.NDArray[np.float32], accept: str) -> tuple[str, str]:
    """The predictions in the wanted format, and that format's content type."""
    wanted = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    if CSV in wanted and JSON not in wanted:
        return "".join(f"{value:.6f}\n" for value in predictions), CSV
    if not {JSON, "application/*", "*/*", ""} & set(wanted):
        raise ValueError(f"Cannot answer with {accept!r}: accept {JSON} or {CSV}")
    return json.dumps({"predictions": [round(float(value), 6) for value in predictions]}), JSON
