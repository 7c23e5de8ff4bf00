"""The one place where an hour's facts become what the model sees, in training and in serving alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from model_code.shared.columns import Columns, Vector, day, number, vector

LABEL = "bikers"

READINGS = ("temp", "atemp", "hum", "windspeed")  # each between 0 and 1, as the data's makers scaled them
SKIES = ("clear", "cloudy/misty", "light rain/snow", "heavy rain/snow")  # in order: the worse the sky, the fewer ride

# What a row holds: the columns of the feature files, of a JSON request and, in this order, of a CSV request.
FIELDS = ("date", "hr", "holiday", "weathersit", *READINGS)
REQUIRED = FIELDS[:3]  # the calendar; the weather may be unknown

# What the model sees: the columns of the matrix, in order.
FEATURES = ("hour", "day_of_week", "holiday", "working_day", "sky", *READINGS)


def matrix(columns: Columns) -> Vector:
    """Rows x FEATURES; raises ValueError naming the field whose values cannot be encoded."""
    return np.column_stack([vector(columns, *_DERIVED.get(name, ((name,), number))) for name in FEATURES])


def _hour(hr: Any) -> float:
    hour = number(hr)
    if hour not in range(24):
        raise ValueError(f"{hr!r} is not an hour from 0 to 23")
    return hour


def _day_of_week(date: str) -> float:
    return float(day(date).weekday())


def _holiday(holiday: Any) -> float:
    if number(holiday) not in (0, 1):
        raise ValueError(f"{holiday!r} is neither 0 nor 1")
    return float(holiday)


def _working_day(date: str, holiday: Any) -> float:
    return float(day(date).weekday() < 5 and not holiday)


def _sky(weathersit: str | None) -> float:
    """How bad the sky is; missing for one that nobody has seen yet."""
    return float(SKIES.index(weathersit)) if weathersit in SKIES else np.nan


_DERIVED: Mapping[str, tuple[tuple[str, ...], Callable[..., float]]] = {
    "hour": (("hr",), _hour),
    "day_of_week": (("date",), _day_of_week),
    "holiday": (("holiday",), _holiday),
    "working_day": (("date", "holiday"), _working_day),
    "sky": (("weathersit",), _sky),
}
