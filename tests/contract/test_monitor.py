"""The monitoring job as the image runs it: captured requests and labelled rows in, report, metrics and plots out."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from config import Guardrails
from tests.contract.test_entry import CONSTANT, WRITES_ALL, Job, job

RANDOM = random.Random(0)
WEEKS, ROWS, REQUESTS = 5, 200, 400
PNG = b"\x89PNG\r\n"


def people(count: int, visits: int) -> pd.DataFrame:
    """Rows whose visits, which decide the prediction, are about so many."""
    return pd.DataFrame({"age": [30 + RANDOM.randint(0, 9) for _ in range(count)],
                         "visits": [max(0, visits + RANDOM.randint(-2, 2)) for _ in range(count)],
                         "minutes": [RANDOM.uniform(0, 9) for _ in range(count)],
                         "bought": [RANDOM.randint(0, 1) for _ in range(count)]})  # fmt: skip


def capture(folder: Path, rows: pd.DataFrame, *, days: int = 7, answer: float = 0.25) -> None:
    """What SageMaker's data capture writes of one request for each row, over so many days."""
    lines = []
    for number, row in enumerate(rows.drop(columns="bought").to_dict("records")):
        told = json.dumps({"predictions": [answer + 0.1 * (row["visits"] > 3)]})
        parts = {"endpointInput": json.dumps({"instances": [row]}), "endpointOutput": told}
        captured = {name: {"observedContentType": "application/json", "mode": name[8:].upper(), "data": text,
                           "encoding": "JSON"} for name, text in parts.items()}  # fmt: skip
        moment = f"2013-03-{2 + number * days // len(rows):02}T12:00:00Z"
        about = {"eventId": str(number), "inferenceTime": moment}
        lines.append(json.dumps({"captureData": captured, "eventMetadata": about, "eventVersion": "0"}))
    place = folder / "2013" / "03" / "08" / "12"
    place.mkdir(parents=True)
    (place / "00-00-000-a.jsonl").write_text("\n".join(lines))


@pytest.fixture
def watched(repository: Path, guardrails: Guardrails, tmp_path: Path) -> Job:
    """A trained model with a baseline of five weeks, and labels that landed since."""
    found = job(repository, guardrails, tmp_path / "job", {"train.py": WRITES_ALL, "inference.py": CONSTANT})
    done = found.run()
    assert done.returncode == 0, done.stderr
    found.pack_model("challenger")
    for week in range(WEEKS):
        place = found.folder / "input" / "baseline" / f"period=2013-W{week:02}"
        place.mkdir(parents=True)
        people(ROWS, 3).to_parquet(place / "a.parquet")
    (found.folder / "input" / "holdout").mkdir()
    people(ROWS, 3).to_parquet(found.folder / "input" / "holdout" / "a.parquet")
    return found


def report(watched: Job, visits: int) -> dict[str, Any]:
    capture(watched.folder / "input" / "captured" / "0", people(REQUESTS, visits))
    done = watched.run("monitor", "--input", "input", "--output", "output", "--models", "models")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((watched.folder / "output" / "report.json").read_text())
    for name, value in found["metrics"].items():
        assert f"{name}={value:.4f};" in done.stdout, "the log has every metric"
    for plot in ("features.png", "predictions.png"):
        assert (watched.folder / "output" / plot).read_bytes().startswith(PNG)
    return found


def test_requests_like_training_are_no_drift(watched: Job) -> None:
    found = report(watched, visits=3)
    assert set(found["metrics"]) >= {"FeatureDrift", "PredictionDrift", "Quality"}
    assert found["rows"] == {"baseline": WEEKS * ROWS, "captured": REQUESTS, "measured": REQUESTS, "labelled": ROWS}
    assert found["metrics"]["FeatureDrift"] < 1
    assert found["metrics"]["PredictionDrift"] < 1


def test_requests_unlike_any_week_of_training_are_drift(watched: Job) -> None:
    found = report(watched, visits=20)
    assert found["metrics"]["FeatureDrift"] > 1
    assert found["metrics"]["PredictionDrift"] > 1
    assert found["features"][0]["name"] == "visits", "what the predictions depend on comes first"


def test_two_days_of_requests_are_no_week_and_publish_nothing_however_they_look(watched: Job) -> None:
    capture(watched.folder / "input" / "captured" / "0", people(REQUESTS, 20), days=2)
    done = watched.run("monitor", "--input", "input", "--output", "output", "--models", "models")
    assert done.returncode == 0, done.stderr
    found = json.loads((watched.folder / "output" / "report.json").read_text())
    assert set(found["metrics"]) == {"Quality"}
    assert "within 1.0 days; drift is measured from 6 days on" in " ".join(found["notes"])
    assert "within 1.0 days; drift is measured from 6 days on" in done.stdout


def test_whatever_was_answered_then_the_live_version_predicts_the_requests_anew(watched: Job) -> None:
    capture(watched.folder / "input" / "captured" / "0", people(REQUESTS, 3), answer=99.0)
    done = watched.run("monitor", "--input", "input", "--output", "output", "--models", "models")
    assert done.returncode == 0, done.stderr
    found = json.loads((watched.folder / "output" / "report.json").read_text())
    assert found["metrics"]["PredictionDrift"] < 1
    assert 0.25 <= found["predictions"]["mean"]["captured"] <= 0.35
