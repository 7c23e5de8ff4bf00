"""SageMaker processing: challenger and champion scored on the same holdout -> evaluation.json and plots.

Each model is scored by its own code, the one packed beside it, in a process of its own: a champion may have been
trained by code that the challenger's commit has changed.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from model_code.flight_delay import plots
from model_code.flight_delay.encoding import LABEL

ENTRY = Path("code") / "pushline_entry.py"

Scores = npt.NDArray[np.float64]


def main(arguments: list[str] | None = None) -> None:
    """Compare the models in `--challenger` and `--champion` on `--holdout`."""
    given = _arguments(arguments)
    rows = pd.read_parquet(given.holdout)
    labels = rows[LABEL].to_numpy()
    if len(np.unique(labels)) < 2:
        raise SystemExit(f"The holdout's {len(labels)} rows do not hold both outcomes: nothing can be compared")
    models = {"challenger": given.challenger} | ({"champion": given.champion} if given.champion else {})
    with ThreadPoolExecutor() as pool:  # the work is in the models' own processes
        scores = dict(zip(models, pool.map(lambda name: _score(name, models[name], rows), models), strict=True))
    metrics = {name: _metrics(name, labels, values) for name, values in scores.items()}
    given.output.mkdir(parents=True, exist_ok=True)
    _report(given.output, len(rows), metrics)
    plots.draw(given.output, labels, scores, models)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--challenger", type=Path, required=True)
    parser.add_argument("--champion", type=Path)
    parser.add_argument("--holdout", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args(arguments)


def _score(name: str, model: Path, rows: pd.DataFrame) -> Scores:
    """The scores that the code packed with the model gives these rows."""
    if not (model / ENTRY).is_file():
        raise SystemExit(f"The {name} in {model} lacks {ENTRY}: it was not trained by this platform")
    with tempfile.TemporaryDirectory() as folder:
        data, scored = Path(folder, "data"), Path(folder, "scores.parquet")
        data.mkdir()
        rows.to_parquet(data / "holdout.parquet")  # one file, so that the order of the scores is beyond doubt
        finished = subprocess.run(
            [sys.executable, model / ENTRY, "score", "--model", model, "--data", data, "--output", scored], check=False
        )
        if finished.returncode:
            raise SystemExit(f"The {name}'s own code could not score the holdout: exit code {finished.returncode}")
        return _usable(name, pd.read_parquet(scored)["prediction"].to_numpy(dtype=np.float64), len(rows))


def _usable(name: str, scores: Scores, rows: int) -> Scores:
    if len(scores) != rows:
        raise SystemExit(f"The {name} scored {len(scores)} of the holdout's {rows} rows")
    if outside := int(np.sum(~((scores >= 0) & (scores <= 1)))):  # NaN is outside, too
        raise SystemExit(f"{outside} of the {name}'s {rows} scores are not probabilities")
    return scores


def _metrics(name: str, labels: npt.NDArray[np.int64], scores: Scores) -> dict[str, float]:
    metrics = {
        "auc": float(roc_auc_score(labels, scores)),
        "log_loss": float(log_loss(labels, scores)),
        "brier": float(brier_score_loss(labels, scores)),
    }
    if not all(map(math.isfinite, metrics.values())):
        raise SystemExit(f"The {name}'s metrics are unusable: {metrics}")
    return metrics


def _report(output: Path, rows: int, metrics: dict[str, dict[str, float]]) -> None:
    report = {"rows": rows, "challenger": metrics["challenger"], "champion": metrics.get("champion")}
    (output / "evaluation.json").write_text(json.dumps(report, indent=1))
    for name, values in metrics.items():
        print(" ".join(f"{name}_{metric}={value};" for metric, value in values.items()), flush=True)


if __name__ == "__main__":
    main()
