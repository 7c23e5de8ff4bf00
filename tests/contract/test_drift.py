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
import pushline_span as span  # type: ignore[import-not-found]

from stacks.release_sample import SAMPLE_ID

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


def read(data: str, kind: str) -> Any:
    return json.loads(data)


def test_captured_requests_are_read_oldest_first_without_the_platforms_own(tmp_path: Path) -> None:
    encoded = base64.b64encode(b'[{"a": 5}]').decode()
    sample = json.loads(record("2013-03-01T07:30:00Z", [{"a": 9}], "[0.9]"))
    sample["eventMetadata"]["inferenceId"] = captured.SAMPLE_ID
    lines = [record("2013-03-01T08:00:00Z", [{"a": 4}], "0.4\n", "text/csv; charset=utf-8"), json.dumps(sample),
             record("2013-03-01T07:00:00Z", [{"a": 2}, {"a": 3}], '{"predictions": [0.2, 0.3]}'),
             record("2013-03-01T09:00:00Z", [], "[[0.5]]", data=encoded, encoding="BASE64"),
             record("2013-03-01T09:00:00Z", "not rows", "[0.6]", data="{"), "no JSON"]  # fmt: skip
    place = tmp_path / "0" / "06"
    place.mkdir(parents=True)
    (place / "a.jsonl").write_text("\n".join(lines))
    found = captured.read_captured(tmp_path, read)
    assert found.rows["a"].tolist() == [2, 3, 4, 5]
    assert found.moments == ["2013-03-01T07:00:00Z"] * 2 + ["2013-03-01T08:00:00Z", "2013-03-01T09:00:00Z"]
    assert len(found.unreadable) == 2


def test_the_releases_samples_are_known_by_their_id() -> None:
    assert captured.SAMPLE_ID == SAMPLE_ID


def asked(*requests: tuple[str, dict[str, Any]]) -> Any:
    return captured.Captured([(day, pd.DataFrame([row])) for day, row in requests])


def test_days_of_a_version_with_other_columns_are_left_out() -> None:
    found = asked(("2013-03-01", {"a": 1}), ("2013-03-02", {"a": 2}), ("2013-03-02", {"a": 2, "b": 1}),
                  ("2013-03-03", {"a": 3}), ("2013-03-03", {"a": 3, "b": 1}))  # fmt: skip
    assert captured.of_the_same_columns(found, ["a", "b"]).rows["a"].tolist() == [2, 2, 3, 3]
    assert captured.of_the_same_columns(found, ["a"]).rows["a"].tolist() == [1, 2, 2, 3, 3]


def test_rows_are_predicted_in_their_order_with_the_types_they_came_in() -> None:
    found = asked(("1", {"a": 1.0}), ("2", {"a": None}), ("3", {"a": 3.0}), ("4", {"a": 4.0, "b": "x"}))

    def predict(rows: pd.DataFrame) -> Any:
        assert len({rows[name].dtype for name in rows}) == len(rows.columns)
        return rows["a"].fillna(-1.0).to_numpy(dtype=float) * 10 if rows["a"].dtype == float else [-1.0] * len(rows)

    assert captured.predicted(found, predict) == [10, -1, 30, 40]


def weekly(weeks: int, each: int = 70) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """A baseline with a day and a birthday, and the week of each row."""
    day = pd.date_range("2013-01-07", periods=7 * weeks).repeat(each // 7)
    born = pd.Series(RANDOM.integers(0, 9000, len(day))).map(
        lambda n: str(pd.Timestamp("1980-01-01") + n * pd.Timedelta("1D"))
    )
    rows = pd.DataFrame({"born": born.str[:10], "day": day.strftime("%Y-%m-%d"), "value": RANDOM.normal(size=len(day))})
    return rows, pd.Series(np.repeat([f"week {n}" for n in range(weeks)], each))


def test_a_day_of_requests_is_no_week() -> None:
    baseline, period = weekly(5)
    rows = pd.DataFrame({"value": [1.0, 2.0, 3.0]})
    found = span.week_of(
        rows, ["2013-03-01T00:10:00Z", "2013-03-03T09:00:00Z", "2013-03-05T23:00:00Z"], baseline, period
    )
    assert found.rows is None
    assert "captured within 5.0 days; drift is measured from 6 days on" in found.said


def test_all_that_was_captured_over_a_week_is_measured() -> None:
    baseline, period = weekly(5)
    rows = pd.DataFrame({"day": ["2013-09-01", None]})
    found = span.week_of(rows, ["2013-03-01T06:00:00Z", "2013-03-07T06:00:00Z"], baseline, period)
    assert found.rows.tolist() == [True, True]


def test_requests_that_come_faster_than_they_happen_are_dated_by_the_column_that_makes_the_weeks() -> None:
    baseline, period = weekly(5)
    assert span.dated_by(baseline, period) == ["day"]
    days = [f"2013-03-{day:02}" for day in (*range(1, 8), *range(8, 15))]
    rows = pd.DataFrame({"born": days, "day": days})
    moments = ["2013-05-01T06:00:00Z"] * 14
    found = span.week_of(rows, moments, baseline, period)
    assert found.rows.tolist() == [False] * 7 + [True] * 7
    assert found.said == "the last 7 days by day"
    assert span.week_of(rows[:6], moments[:6], baseline, period).rows is None
    assert span.week_of(rows[["born"]], moments, baseline, period).rows is None
