"""The one place where a row of flight facts becomes what the model sees, in training and in serving alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_code.shared.columns import Columns, Vector, day, number, vector

LABEL = "late"

CATEGORIES = ("carrier", "origin", "dest", "engine")
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")

# What a row holds: the columns of the feature files, of a JSON request and, in this order, of a CSV request.
FIELDS = (
    "flight_date",
    "sched_dep_time",
    "carrier",
    "origin",
    "dest",
    "distance",
    "plane_year",
    "engine",
    "seats",
    *WEATHER,
)
REQUIRED = FIELDS[:6]  # the schedule; plane and weather may be unknown

# What the model sees: the columns of the matrix, in order.
FEATURES = ("day_of_week", "departure_hour", "distance", "plane_age", "seats", *WEATHER, *CATEGORIES)


@dataclass(frozen=True)
class Encoding:
    """The categories known at training time; a category not among them is encoded as missing."""

    categories: Mapping[str, tuple[str, ...]]

    @classmethod
    def learned_from(cls, columns: Columns) -> Encoding:
        """The encoding for the categories found in training rows."""
        return cls(
            {name: tuple(sorted({value for value in columns[name] if isinstance(value, str)})) for name in CATEGORIES}
        )

    @classmethod
    def load(cls, path: Path) -> Encoding:
        """The encoding that `save` wrote."""
        return cls({name: tuple(values) for name, values in json.loads(path.read_text())["categories"].items()})

    def save(self, path: Path) -> None:
        """Write the encoding as JSON beside the model it belongs to."""
        path.write_text(json.dumps({"categories": self.categories}, indent=1))

    def matrix(self, columns: Columns) -> Vector:
        """Rows x FEATURES; raises ValueError naming the field whose values cannot be encoded."""
        codes = {name: self._codes(name, columns[name]) for name in CATEGORIES}
        return np.column_stack([codes[name] if name in codes else _numbers(name, columns) for name in FEATURES])

    def _codes(self, name: str, values: Sequence[Any]) -> Vector:
        known = {value: code for code, value in enumerate(self.categories[name])}
        return np.array([known.get(value, np.nan) for value in values], dtype=np.float32)


def _numbers(feature: str, columns: Columns) -> Vector:
    return vector(columns, *_DERIVED.get(feature, ((feature,), number)))


def _day_of_week(flight_date: str) -> float:
    return float(day(flight_date).weekday())


def _departure_hour(hhmm: Any) -> float:
    hours, minutes = divmod(number(hhmm), 100)
    if not (0 <= hours <= 24 and minutes < 60):
        raise ValueError(f"{hhmm!r} is not a time of day written as HHMM")
    return hours + minutes / 60


def _plane_age(flight_date: str, plane_year: Any) -> float:
    return day(flight_date).year - number(plane_year)


_DERIVED: Mapping[str, tuple[tuple[str, ...], Callable[..., float]]] = {
    "day_of_week": (("flight_date",), _day_of_week),
    "departure_hour": (("sched_dep_time",), _departure_hour),
    "plane_age": (("flight_date", "plane_year"), _plane_age),
}
