"""The model as its jobs and its endpoint use it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

from model_code.bike_demand import evaluate
from model_code.bike_demand.encoding import FEATURES, FIELDS, matrix
from model_code.bike_demand.inference import input_fn, output_fn, predict_fn

from .conftest import ROOT, hours, train

HERE = Path(__file__).parent
HOUR = {"date": "2011-05-02", "hr": 17, "holiday": 0, "weathersit": "clear"}
# As the platform's entry does it: `score` through the code of the model's own directory.
ENTRY = """
import sys
import pandas as pd
from model_code.bike_demand import inference
_, _, _, model, _, data, _, output = sys.argv
rows = pd.read_parquet(data)
scores = inference.predict_fn(rows.drop(columns="bikers"), inference.model_fn(model))
pd.DataFrame({"prediction": SCORES}).to_parquet(output)
"""


def directory(trained: Path, folder: Path, scores: str = "scores") -> Path:
    """A model directory as training leaves it: the model's files and `code/`."""
    (folder / "code").mkdir(parents=True)
    for path in trained.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "code" / "model_code").symlink_to(ROOT / "model_code")
    (folder / "code" / "pushline_entry.py").write_text(ENTRY.replace("SCORES", scores))
    return folder


def compare(tmp_path: Path, *models: str | Path) -> Path:
    """Run evaluate.py's main on a week in two files; its output folder."""
    holdout = tmp_path / "holdout"
    holdout.mkdir()
    rows = hours(days=7, seed=9)
    rows.head(100).to_parquet(holdout / "part-0.parquet")
    rows.tail(len(rows) - 100).to_parquet(holdout / "part-1.parquet")
    evaluate.main([*map(str, models), "--holdout", str(holdout), "--output", str(tmp_path / "output")])
    return tmp_path / "output"


def test_training_writes_a_model_that_fits_and_is_the_same_whatever_the_order(model_dir: Path, tmp_path: Path) -> None:
    metrics = json.loads((model_dir / "metrics.json").read_text())
    assert set(metrics) == {"train_rmse", "train_mae", "train_rows"}
    assert metrics["train_rmse"] < 20 < hours()["bikers"].std()
    again = train(hours().sample(frac=1, random_state=1), tmp_path)
    assert (again / "model.ubj").read_bytes() == (model_dir / "model.ubj").read_bytes()


@pytest.mark.parametrize(
    ("spoil", "arguments", "reason"),
    [
        (lambda rows: rows.head(0), (), "No training rows"),
        (lambda rows: rows.assign(hr=24), (), "hr: 24 is not an hour"),
        (lambda rows: rows.assign(bikers=-1), (), "label must be non-negative"),
        (lambda rows: rows, ("--eta", "nan"), "make it diverge"),
    ],
)
def test_training_fails_and_says_why(
    spoil: Callable[[pd.DataFrame], pd.DataFrame], arguments: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    with pytest.raises((Exception, SystemExit), match=reason):
        train(spoil(hours()), tmp_path, *arguments)
    assert not (tmp_path / "model" / "metrics.json").exists()


def test_the_sample_requests_say_the_same_in_both_formats(model: xgb.Booster) -> None:
    columns = [
        input_fn((HERE / f"sample_request.{suffix}").read_text(), content_type)
        for suffix, content_type in (("json", "application/json"), ("csv", "text/csv"))
    ]
    from_json, from_csv = (predict_fn(each, model) for each in columns)
    np.testing.assert_array_equal(from_json, from_csv)
    rush, night = from_json
    assert rush > 3 * night > 0


def test_a_feature_row_and_a_request_for_it_score_the_same(model: xgb.Booster) -> None:
    rows = hours(days=3, seed=5)
    expected = predict_fn(rows, model)
    request = rows[list(FIELDS)].to_json(orient="records", double_precision=15)
    csv = rows[list(FIELDS)].to_csv(index=False, header=False)
    np.testing.assert_array_equal(predict_fn(input_fn(request, "application/json"), model), expected)
    np.testing.assert_array_equal(predict_fn(input_fn(csv, "text/csv"), model), expected)


def test_the_encoding_derives_what_the_model_sees() -> None:
    def seen(**values: object) -> dict[str, float]:
        return dict(zip(FEATURES, matrix(input_fn(json.dumps({**HOUR, **values})))[0], strict=True))

    monday, sunday, holiday = seen(), seen(date="2011-05-01"), seen(holiday=1)
    assert (monday["hour"], monday["day_of_week"], monday["working_day"], monday["sky"]) == (17, 0, 1, 0)
    assert (sunday["day_of_week"], sunday["working_day"]) == (6, 0)
    assert (holiday["holiday"], holiday["working_day"]) == (1, 0)
    assert np.isnan(monday["temp"])
    assert np.isnan(seen(weathersit="raining frogs")["sky"])


def test_the_answer_comes_in_the_accepted_format() -> None:
    counts = np.array([12.5, 200], dtype=np.float32)
    assert json.loads(output_fn(counts)[0]) == {"predictions": [12.5, 200.0]}
    assert output_fn(counts, "text/csv") == ("12.500000\n200.000000\n", "text/csv")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({**HOUR, "bikers": 3}, "unknown fields: bikers"),
        ({**HOUR, "hr": 24}, "hr: 24 is not an hour from 0 to 23"),
        ({**HOUR, "hr": 1.5}, "1.5 is not an hour"),
        ({**HOUR, "holiday": 2}, "holiday: 2 is neither 0 nor 1"),
        ({**HOUR, "date": "May 2"}, "date"),
        ({"hr": 1, "holiday": 0}, "Row 1 lacks date"),
        ([], "holds no hour"),
        (7, "Expected a list, or one hour as an object"),
    ],
)
def test_a_bad_request_is_refused_with_the_reason(body: object, reason: str, model: xgb.Booster) -> None:
    with pytest.raises(ValueError, match=reason):
        predict_fn(input_fn(json.dumps(body)), model)


def test_each_model_is_scored_by_its_own_code_and_both_are_drawn(model_dir: Path, tmp_path: Path) -> None:
    challenger = directory(model_dir, tmp_path / "challenger")
    champion = directory(model_dir, tmp_path / "champion", "scores * 0 + 35")
    output = compare(tmp_path, "--challenger", challenger, "--champion", champion)
    report = json.loads((output / "evaluation.json").read_text())
    assert report["rows"] == 7 * 24
    assert set(report["challenger"]) == set(report["champion"]) == {"rmse", "mae", "r2"}
    assert report["challenger"]["rmse"] < report["champion"]["rmse"] / 2
    assert report["challenger"]["r2"] > 0.8 > 0.1 > report["champion"]["r2"]
    plots = {path.name: path.stat().st_size for path in output.glob("*.png")}
    assert set(plots) == {"predicted.png", "residuals.png", "importance.png"}
    assert min(plots.values()) > 5000


def test_the_first_model_is_evaluated_alone(model_dir: Path, tmp_path: Path) -> None:
    output = compare(tmp_path, "--challenger", directory(model_dir, tmp_path / "challenger"))
    assert json.loads((output / "evaluation.json").read_text())["champion"] is None


def test_a_negative_count_is_refused(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="168 of the challenger's 168 scores are not counts"):
        compare(tmp_path, "--challenger", directory(model_dir, tmp_path / "challenger", "-scores"))
