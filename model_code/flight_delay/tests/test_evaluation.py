"""Challenger and champion, each scored by the code packed beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_code.flight_delay import evaluate

from .conftest import ROOT, flights

# As the platform's entry does it: `score` through the code of the model's own directory.
ENTRY = """
import pathlib, sys
import pandas as pd
from model_code.flight_delay import inference
_, _, _, model, _, data, _, output = sys.argv
rows = pd.concat(map(pd.read_parquet, pathlib.Path(data).glob("*.parquet")))
scores = inference.predict_fn(rows.drop(columns="late"), inference.model_fn(model))
pd.DataFrame({"prediction": SCORES}).to_parquet(output)
"""
# A model of another kind, which scores without any of the libraries that take long to import.
PLAIN_ENTRY = """
import sys
import pyarrow as pa, pyarrow.parquet as pq
_, _, _, model, _, data, _, output = sys.argv
scores = [0.9 if visib < 5 else 0.1 for visib in pq.read_table(data)["visib"].to_pylist()]
pq.write_table(pa.table({"prediction": SCORES}), output)
"""


def directory(trained: Path, folder: Path, scores: str = "scores", entry: str = ENTRY) -> Path:
    """A model directory as training leaves it: the model's files and `code/`."""
    (folder / "code").mkdir(parents=True)
    for path in trained.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "code" / "model_code").symlink_to(ROOT / "model_code")
    (folder / "code" / "pushline_entry.py").write_text(entry.replace("SCORES", scores))
    return folder


def run(tmp_path: Path, *models: str | Path) -> Path:
    """Run evaluate.py's main on 600 flights in two files; its output folder."""
    holdout = tmp_path / "holdout"
    holdout.mkdir()
    rows = flights(seed=9)
    rows.head(200).to_parquet(holdout / "part-0.parquet")
    rows.tail(400).to_parquet(holdout / "part-1.parquet")
    evaluate.main([*map(str, models), "--holdout", str(holdout), "--output", str(tmp_path / "output")])
    return tmp_path / "output"


def test_the_first_model_is_evaluated_alone(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = run(tmp_path, "--challenger", directory(model_dir, tmp_path / "challenger", entry=PLAIN_ENTRY))
    report = json.loads((output / "evaluation.json").read_text())
    assert report["rows"] == 600
    assert report["champion"] is None
    assert report["challenger"]["auc"] > 0.7
    assert "challenger_auc=" in capsys.readouterr().out


def test_each_model_is_scored_by_its_own_code(model_dir: Path, tmp_path: Path) -> None:
    challenger = directory(model_dir, tmp_path / "challenger")
    champion = directory(model_dir, tmp_path / "champion", "[0.3] * len(scores)", PLAIN_ENTRY)
    output = run(tmp_path, "--challenger", challenger, "--champion", champion)
    report = json.loads((output / "evaluation.json").read_text())
    assert report["challenger"]["auc"] > 0.95
    assert report["champion"]["auc"] == 0.5
    assert set(report["champion"]) == {"auc", "log_loss", "brier"}
    plots = {path.name: path.stat().st_size for path in output.glob("*.png")}
    assert set(plots) == {"roc.png", "calibration.png", "importance.png"}
    assert min(plots.values()) > 5000


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ("[float('nan')] * 600", "600 of the challenger's 600 scores are not probabilities"),
        ("scores[1:]", "scored 599 of the holdout's 600 rows"),
        ("1 / 0", "own code could not score the holdout"),
    ],
)
def test_unusable_scores_are_refused(scores: str, reason: str, model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=reason):
        run(tmp_path, "--challenger", directory(model_dir, tmp_path / "challenger", scores, PLAIN_ENTRY))
    assert not (tmp_path / "output" / "evaluation.json").exists()


def test_a_model_without_its_code_is_refused(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"lacks code/pushline_entry\.py"):
        run(tmp_path, "--challenger", model_dir)
