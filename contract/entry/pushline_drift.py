"""How far requests have moved from the training rows, measured against how far those moved among themselves.

A frozen threshold per feature alarms all year where seasons pass: docs/decisions.md has the numbers. So every distance
is divided by the same distance of the training window's strangest week from the window's rest: above 1, the
requests are further from the training rows than any week of those was. Features count by how much the model's
predictions depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

BINS = 10
MINIMUM_ROWS = 200
"""Below this a histogram of ten bins says little."""
MINIMUM_PERIOD_ROWS = 100
MINIMUM_PERIODS = 3
LEAST_SPREAD = 0.1
"""A population stability index up to 0.1 is customarily no shift; a calmer training window makes no alarm of it."""
CUSTOMARY_SHIFT = 0.25
"""What counts as a major shift by custom, for a baseline that says nothing about its weeks."""
_SEED = 0

Counts = npt.NDArray[np.float64]
Histogram = Callable[["pd.Series[Any]"], Counts]
Predict = Callable[[pd.DataFrame], Counts]


@dataclass(frozen=True)
class Drift:
    """`distance` of the requests, `spread` of the training weeks; their ratio is what is watched."""

    distance: float
    spread: float

    @property
    def ratio(self) -> float:
        return self.distance / self.spread


def stability_index(expected: Counts, found: Counts) -> float:
    """The population stability index of two histograms, without what chance alone makes of it."""
    seen = (expected + found) > 0
    expected, found = expected[seen], found[seen]
    p = (expected + 0.5) / (expected.sum() + 0.5 * len(expected))
    q = (found + 0.5) / (found.sum() + 0.5 * len(found))
    chance = (len(expected) - 1) * (1 / float(expected.sum()) + 1 / float(found.sum()))
    return max(0.0, float(((p - q) * np.log(p / q)).sum()) - chance)


def histogram_of(reference: pd.Series[Any]) -> Histogram:
    """How to count a column: by the reference's deciles, or by its values where it is text; missing is a bin."""
    if pd.api.types.is_numeric_dtype(reference):
        known = reference.dropna().to_numpy(dtype=float)
        cuts = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1])) if len(known) else np.empty(0)
        return lambda values: _by_cuts(values, cuts)
    common = reference.dropna().value_counts().index[: 2 * BINS]
    return lambda values: _by_value(values, common)


def _by_cuts(values: pd.Series[Any], cuts: Counts) -> Counts:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float)
    known = numbers[~np.isnan(numbers)]
    counts = np.bincount(np.searchsorted(cuts, known, side="right"), minlength=len(cuts) + 1)
    return np.append(counts, len(numbers) - len(known)).astype(float)


def _by_value(values: pd.Series[Any], common: pd.Index[Any]) -> Counts:
    counts = values.value_counts()
    listed = counts.reindex(common, fill_value=0).to_numpy(dtype=float)
    missing = float(values.isna().sum())
    return np.append(listed, [len(values) - missing - listed.sum(), missing])


def is_date(column: pd.Series[Any]) -> bool:
    """Whether a column holds dates, which always move on."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return True
    values = column.dropna().unique()
    return len(values) > 0 and all(_reads_as_date(value) for value in values[:100])


def _reads_as_date(value: object) -> bool:
    if isinstance(value, date):
        return True
    try:
        date.fromisoformat(str(value)[:10])
    except ValueError:
        return False
    return isinstance(value, str)


def importance(rows: pd.DataFrame, columns: list[str], predict: Predict) -> Counts:
    """Each column's share in the predictions: how far they move when the column is shuffled."""
    random, before = np.random.default_rng(_SEED), predict(rows)
    moved = []
    for name in columns:
        shuffled = rows.assign(**{name: rows[name].to_numpy()[random.permutation(len(rows))]})
        moved.append(float(np.abs(predict(shuffled) - before).mean()))
    total = sum(moved)
    return np.array(moved) / total if total else np.full(len(columns), 1 / max(len(columns), 1))


def periods_of(period: pd.Series[Any]) -> list[npt.NDArray[np.bool_]]:
    """A mask per period that has rows enough to be compared with the others; none if there are too few."""
    names, counts = np.unique(period.dropna().to_numpy(dtype=str), return_counts=True)
    masks = [(period == name).to_numpy() for name, count in zip(names, counts, strict=True)
             if count >= MINIMUM_PERIOD_ROWS]  # fmt: skip
    return masks if len(masks) >= MINIMUM_PERIODS else []


def column_drift(baseline: pd.Series[Any], found: pd.Series[Any],
                 periods: list[npt.NDArray[np.bool_]]) -> tuple[float, Counts]:  # fmt: skip
    """The distance of `found` from the baseline, and that of each period from the other periods."""
    count = histogram_of(baseline)
    between = [stability_index(count(baseline[~mask]), count(baseline[mask])) for mask in periods]
    return stability_index(count(baseline), count(found)), np.array(between)


def against_periods(distance: float, between: Counts) -> Drift:
    """The distance against the strangest period."""
    return Drift(distance, max(float(between.max()), LEAST_SPREAD) if len(between) else CUSTOMARY_SHIFT)
