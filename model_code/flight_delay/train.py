"""SageMaker script mode: training rows -> a boosted-trees model with the encoding it was trained under."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import xgboost as xgb
from sklearn.metrics import log_loss, roc_auc_score

from model_code.flight_delay.encoding import FEATURES, FIELDS, LABEL, Encoding

MODEL_FILE = "model.ubj"
ENCODING_FILE = "encoding.json"


def main(arguments: list[str] | None = None) -> None:
    """Train on the channel `train`, write model, encoding and metrics into the model directory."""
    given = _arguments(arguments)
    rows = _read(given.train)
    encoding = Encoding.learned_from(rows)
    matrix, labels = encoding.matrix(rows), rows[LABEL].to_numpy()
    booster = xgb.train(_parameters(given), xgb.DMatrix(matrix, labels, feature_names=list(FEATURES)), given.num_round)
    metrics = _metrics(labels, booster.inplace_predict(matrix))
    booster.save_model(given.model_dir / MODEL_FILE)
    encoding.save(given.model_dir / ENCODING_FILE)
    (given.model_dir / "metrics.json").write_text(json.dumps(metrics, indent=1))
    for name, value in metrics.items():
        print(f"{name}={value};", flush=True)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, default=os.environ.get("SM_CHANNEL_TRAIN"))
    parser.add_argument("--model_dir", type=Path, default=os.environ.get("SM_MODEL_DIR"))
    parser.add_argument("--num_round", type=int, default=60)
    parser.add_argument("--max_depth", type=int, default=4)
    parser.add_argument("--eta", type=float, default=0.1)
    parser.add_argument("--min_child_weight", type=float, default=1.0)
    parser.add_argument("--subsample", type=float, default=1.0)
    parser.add_argument("--colsample_bytree", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    for name in ("train", "model_dir"):
        if getattr(given, name) is None:
            parser.error(f"--{name} or its SM_* environment variable is required")
    return given


def _parameters(given: argparse.Namespace) -> dict[str, float | int | str]:
    # One thread: the same rows then give the same trees wherever it runs.
    names = ("max_depth", "eta", "min_child_weight", "subsample", "colsample_bytree", "seed")
    return {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "nthread": 1,
        **{name: getattr(given, name) for name in names},
    }


def _read(folder: Path) -> pd.DataFrame:
    """All rows of the folder, in an order that does not depend on how Spark spread them over files."""
    rows = pd.read_parquet(folder)
    if rows.empty:
        raise SystemExit(f"No training rows in {folder}")
    return rows.sort_values([*FIELDS[:6], "flight"], kind="stable", ignore_index=True)


def _metrics(labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> dict[str, float]:
    """How well the model fits its own training rows; the holdout judges it later, in evaluate.py."""
    if len(np.unique(labels)) < 2:
        raise SystemExit(f"Every one of the {len(labels)} training rows has the same outcome: nothing to learn")
    if not np.isfinite(scores).all():
        raise SystemExit(
            f"The trained model scores {np.sum(~np.isfinite(scores))} of its training rows as NaN: "
            "its hyperparameters make it diverge"
        )
    return {
        "train_auc": float(roc_auc_score(labels, scores)),
        "train_log_loss": float(log_loss(labels, scores)),
        "train_rows": len(labels),
    }


if __name__ == "__main__":
    main()
