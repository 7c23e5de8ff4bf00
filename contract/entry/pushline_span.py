"""Which of the captured rows make a week: only a week of requests can be held against the weeks of training.

A single day is far from any week, since it has one weekday and one weather: docs/decisions.md has the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pushline_drift import is_date  # type: ignore[import-not-found]  # beside it in the bundle

DAYS = 7
LEAST_SPAN = timedelta(days=6)
"""From the first to the last request of a week whose first and last day may have begun late and ended early."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Week:
    """The rows that make a week, or None for want of one; `said` tells which they are, or what is missing."""

    rows: Mask | None
    said: str


def week_of(rows: pd.DataFrame, moments: list[str], baseline: pd.DataFrame, period: pd.Series[Any]) -> Week:
    """The rows to measure; `moments` (ISO 8601, oldest first) is when each was answered.

    All rows, where they were captured over a week. Requests that were sent faster than what they are about happens,
    as in a replay, are dated by the column of days that the baseline's periods are made of, where they have one.
    """
    span = _moment(moments[-1]) - _moment(moments[0])
    if span >= LEAST_SPAN:
        return Week(np.ones(len(rows), dtype=bool), f"captured within {span / timedelta(days=1):.1f} days")
    for name in dated_by(baseline, period):
        if name in rows and (last := last_days(days(rows[name]))) is not None:
            return Week(last, f"the last {DAYS} days by {name}")
    least = LEAST_SPAN / timedelta(days=1)
    return Week(None, f"requests were captured within {span / timedelta(days=1):.1f} days; drift is measured from "
                      f"{least:.0f} days on, since fewer are unlike any week of training")  # fmt: skip


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def dated_by(baseline: pd.DataFrame, period: pd.Series[Any]) -> list[str]:
    """The columns of days by which the periods follow one another; a birthday lies in any of them."""
    return [str(name) for name in baseline if is_date(baseline[name]) and _apart(days(baseline[name]), period)]


def _apart(found: pd.Series[Any], period: pd.Series[Any]) -> bool:
    ranges = found.groupby(period).agg(["min", "max"]).dropna().sort_values("min")
    return len(ranges) > 1 and bool((ranges["min"].to_numpy()[1:] > ranges["max"].to_numpy()[:-1]).all())


def days(column: pd.Series[Any]) -> pd.Series[Any]:
    """Each value's day, YYYY-MM-DD; missing where there is none."""
    return column.astype(str).str[:10].where(column.notna())


def last_days(found: pd.Series[Any]) -> Mask | None:
    """The rows, from the end, that are of the last DAYS different days asked about; None if there are fewer."""
    newest_first = found[::-1].dropna()
    known = newest_first.unique()
    if len(known) < DAYS:
        return None
    mask = found.notna().to_numpy()
    if len(known) > DAYS:
        older = (newest_first == known[DAYS]).to_numpy().argmax()
        mask[: found.index.get_loc(newest_first.index[older]) + 1] = False
    return np.asarray(mask)
