"""The platform's evaluation, for models without an evaluate.py: each model scores the holdout through its own code.

Metrics by the kind of the target: binary classification (a label of 0 and 1, predictions are probabilities) or
regression; which of the two is what model.yaml's metric belongs to.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pushline_entry import ContractBroken, read_rows  # type: ignore[import-not-found]  # beside it in the bundle

BINARY = ("accuracy", "auc", "brier", "f1", "log_loss")


def main() -> None:
    """Write evaluation.json and a plot for the models given."""
    options = _options()
    manifest = json.loads((Path(__file__).resolve().parent / "pushline.json").read_text(encoding="utf-8"))
    truth = _truth(options.holdout, manifest["label"])
    binary = manifest["metric"] in BINARY
    if binary:
        _require_both_classes(truth, manifest["label"])
    predictions = {
        side: _predictions(directory, options.holdout, len(truth))
        for side in ("challenger", "champion")
        if (directory := getattr(options, side))
    }
    measured = {side: (_binary if binary else _regression)(truth, values) for side, values in predictions.items()}
    result = {"rows": len(truth), "challenger": measured["challenger"], "champion": measured.get("champion")}
    (options.output / "evaluation.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    _plot(truth, predictions, options.output, binary=binary)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--challenger", type=Path, required=True)
    parser.add_argument("--champion", type=Path)
    parser.add_argument("--holdout", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def _truth(holdout: Path, label: str) -> Any:
    rows = read_rows(holdout)
    if label not in rows:
        raise ContractBroken(f"the holdout has no column {label!r}; name the target in evaluation.label of model.yaml")
    if not len(rows):
        raise ContractBroken("the holdout has no rows")
    return rows[label].to_numpy(dtype=float)


def _require_both_classes(truth: Any, label: str) -> None:
    found = sorted(set(truth.tolist()))
    if found != [0.0, 1.0]:
        raise ContractBroken(f"the holdout's {label} holds {found[:5]}; allowed for this metric: both 0 and 1")


def _predictions(directory: Path, holdout: Path, rows: int) -> Any:
    """One number per row, from the model's own code in a process of its own."""
    import pandas as pd

    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "predictions.parquet"
        entry = [sys.executable, str(directory / "code" / "pushline_entry.py"), "score"]
        where = ["--model", str(directory), "--data", str(holdout), "--output", str(output)]
        if subprocess.run([*entry, *where], check=False).returncode:
            raise ContractBroken(f"{directory.name} could not score the holdout; its error is above")
        frame = pd.read_parquet(output)
    if "prediction" not in frame or len(frame) != rows or not frame["prediction"].notna().all():
        raise ContractBroken(f"{directory.name}'s predict_fn must give one number per row")
    return frame["prediction"].to_numpy(dtype=float)


def _binary(truth: Any, predicted: Any) -> dict[str, float]:
    from sklearn import metrics

    positive = predicted >= 0.5
    return {
        "accuracy": float(metrics.accuracy_score(truth, positive)),
        "auc": float(metrics.roc_auc_score(truth, predicted)),
        "brier": float(metrics.brier_score_loss(truth, predicted)),
        "f1": float(metrics.f1_score(truth, positive)),
        "log_loss": float(metrics.log_loss(truth, predicted)),
    }


def _regression(truth: Any, predicted: Any) -> dict[str, float]:
    from sklearn import metrics

    squared = float(metrics.mean_squared_error(truth, predicted))
    found = {"mae": float(metrics.mean_absolute_error(truth, predicted)), "mse": squared, "rmse": squared**0.5}
    return {**found, "r2": float(metrics.r2_score(truth, predicted))} if len(truth) > 1 else found


def _plot(truth: Any, predictions: dict[str, Any], output: Path, *, binary: bool) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from sklearn.metrics import roc_curve

    figure, axes = pyplot.subplots(figsize=(5, 5))
    for side, predicted in predictions.items():
        across, up = roc_curve(truth, predicted)[:2] if binary else (truth, predicted)
        axes.plot(across, up, "-" if binary else ".", label=side, alpha=0.7)
    axes.set(
        xlabel="false positive rate" if binary else "actual", ylabel="true positive rate" if binary else "predicted"
    )
    axes.legend()
    figure.savefig(output / ("roc.png" if binary else "predicted.png"), dpi=100)


if __name__ == "__main__":
    main()
