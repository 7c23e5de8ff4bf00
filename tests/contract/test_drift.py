"""How far requests have moved, against how far the weeks of training moved among themselves."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "contract" / "entry"))  # as in the unpacked bundle
import pushline_captured as captured  # type: ignore[import-not-found]
import pushline_drift as drift  # type: ignore[import-not-found]

RANDOM = np.random.default_rng(0)


def season(first: float, last: float, weeks: int = 6) -> tuple[pd.Series[Any], list[Any]]:
    """A temperature that climbs from week to week, and which week each row is of."""
    values = np.concatenate([RANDOM.normal(mean, 3, 400) for mean in np.linspace(first, last, weeks)])
    return pd.Series(values), drift.periods_of(pd.Series(np.repeat(np.arange(weeks), 400).astype(str)))


def test_the_same_distribution_is_no_distance() -> None:
    count = drift.histogram_of(pd.Series(RANDOM.normal(size=5000)))
    found = drift.stability_index(
        count(pd.Series(RANDOM.normal(size=5000))), count(pd.Series(RANDOM.normal(size=2000)))
    )
    assert found < 0.02


def test_a_season_that_goes_on_is_no_drift_where_a_fixed_threshold_alarms() -> None:
    baseline, periods = season(30, 50)
    distance, between = drift.column_drift(baseline, pd.Series(RANDOM.normal(50, 3, 1000)), periods)
    assert distance > drift.CUSTOMARY_SHIFT
    assert drift.against_periods(distance, between).ratio < 1.2


def test_what_no_week_of_training_was_like_is_drift() -> None:
    baseline, periods = season(30, 50)
    assert (
        drift.against_periods(*drift.column_drift(baseline, pd.Series(RANDOM.normal(90, 3, 1000)), periods)).ratio > 1.2
    )


def test_a_baseline_without_weeks_is_judged_by_the_customary_threshold() -> None:
    assert drift.against_periods(0.5, np.array([])).ratio == 2


def test_a_column_the_model_ignores_does_not_count() -> None:
    rows = pd.DataFrame({"used": RANDOM.normal(size=500), "ignored": RANDOM.normal(size=500)})
    weights = drift.importance(rows, ["used", "ignored"], lambda frame: frame["used"].to_numpy())
    assert weights.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "expected"), [(["2013-01-01", None], True), (["JFK"], False), ([3.0], False), ([None], False)]
)
def test_dates_are_known_since_they_always_move_on(values: list[Any], expected: bool) -> None:
    assert drift.is_date(pd.Series(values)) is expected


def record(moment: str, rows: Any, answer: str, kind: str = "application/json", **more: Any) -> str:
    given = {"observedContentType": "application/json", "mode": "INPUT", "data": json.dumps(rows), "encoding": "JSON"}
    answered = {"observedContentType": kind, "mode": "OUTPUT", "data": answer, "encoding": "JSON"}
    return json.dumps({"captureData": {"endpointInput": {**given, **more}, "endpointOutput": answered},
                       "eventMetadata": {"eventId": "1", "inferenceTime": moment}, "eventVersion": "0"})  # fmt: skip


def test_captured_requests_and_answers_are_read_since_the_version_went_live(tmp_path: Path) -> None:
    encoded = base64.b64encode(b'[{"a": 5}]').decode()
    lines = [record("2013-03-01T05:00:00Z", [{"a": 1}], "[0.1]"),
             record("2013-03-01T07:00:00Z", [{"a": 2}, {"a": 3}], '{"predictions": [0.2, 0.3]}'),
             record("2013-03-01T08:00:00Z", [{"a": 4}], "0.4\n", "text/csv; charset=utf-8"),
             record("2013-03-01T09:00:00Z", [], "[[0.5]]", data=encoded, encoding="BASE64"),
             record("2013-03-01T09:00:00Z", "not rows", "[0.6]", data="{"), "no JSON"]  # fmt: skip
    place = tmp_path / "0" / "06"
    place.mkdir(parents=True)
    (place / "a.jsonl").write_text("\n".join(lines))
    found = captured.read_captured(tmp_path, "2013-03-01T06:00:00Z", lambda data, kind: json.loads(data))
    assert found.rows["a"].tolist() == [2, 3, 4, 5]
    assert found.predictions == [0.2, 0.3, 0.4, 0.5]
    assert len(found.unreadable) == 2
