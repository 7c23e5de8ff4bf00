"""SageMaker processing: challenger and champion scored on the same held-out hours -> evaluation.json and plots."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from model_code.bike_demand import plots
from model_code.bike_demand.encoding import LABEL
from model_code.shared.comparison import Scores, Task, compare


def main(arguments: list[str] | None = None) -> None:
    """Compare the models in `--challenger` and `--champion` on `--holdout`."""
    compare(Task(LABEL, "counts", _comparable, _possible, _measure, plots.draw), arguments)


def _comparable(counts: Scores) -> str | None:
    # r2 compares with the holdout's mean, which explains everything where nothing varies.
    return None if len(np.unique(counts)) > 1 else f"All of the holdout's {len(counts)} rows have the same count"


def _possible(scores: Scores) -> npt.NDArray[np.bool_]:
    return np.isfinite(scores) & (scores >= 0)


def _measure(counts: Scores, scores: Scores) -> dict[str, float]:
    return {
        "rmse": float(root_mean_squared_error(counts, scores)),
        "mae": float(mean_absolute_error(counts, scores)),
        "r2": float(r2_score(counts, scores)),
    }


if __name__ == "__main__":
    main()
