"""Training boosted trees in SageMaker's script mode: places and hyperparameters in, model and metrics out."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xgboost as xgb

MODEL_FILE = "model.ubj"

Matrix = npt.NDArray[np.float32]


def options(description: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Places, by argument or SM_* variable, and the hyperparameters of model.yaml."""
    parser = argparse.ArgumentParser(description=description)
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


def read(folder: Path, order: Sequence[str]) -> pd.DataFrame:
    """All rows of the folder, sorted by `order`: how Spark spread them over files must not matter."""
    rows = pd.read_parquet(folder)
    if rows.empty:
        raise SystemExit(f"No training rows in {folder}")
    return rows.sort_values(list(order), kind="stable", ignore_index=True)


def fit(given: argparse.Namespace, objective: str, matrix: Matrix, labels: Any, features: Sequence[str]) -> xgb.Booster:
    """The trees for these rows."""
    # One thread: the same rows then give the same trees wherever it runs.
    names = ("max_depth", "eta", "min_child_weight", "subsample", "colsample_bytree", "seed")
    parameters: dict[str, float | int | str] = {
        "objective": objective,
        "tree_method": "hist",
        "nthread": 1,
        **{name: getattr(given, name) for name in names},
    }
    return xgb.train(parameters, xgb.DMatrix(matrix, labels, feature_names=list(features)), given.num_round)


def fitted(booster: xgb.Booster, matrix: Matrix) -> Matrix:
    """What the trees say of their own training rows; a model that diverged ends the job."""
    scores = np.asarray(booster.inplace_predict(matrix))
    if unusable := int(np.sum(~np.isfinite(scores))):
        raise SystemExit(
            f"The trained model scores {unusable} of its training rows as NaN: its hyperparameters make it diverge"
        )
    return scores


def save(model_dir: Path, booster: xgb.Booster, metrics: Mapping[str, float]) -> None:
    """Write the model and its metrics, and print them as the platform reads them."""
    booster.save_model(model_dir / MODEL_FILE)
    (model_dir / "metrics.json").write_text(json.dumps(metrics, indent=1))
    for name, value in metrics.items():
        print(f"{name}={value};", flush=True)


def load(model_dir: str | Path) -> xgb.Booster:
    """The trees that `save` wrote, for serving."""
    return xgb.Booster(params={"nthread": 1}, model_file=Path(model_dir) / MODEL_FILE)
