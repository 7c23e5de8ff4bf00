"""SageMaker script mode: training rows -> boosted trees that predict an hour's count."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from model_code.bike_demand.encoding import FEATURES, LABEL, matrix
from model_code.shared import boosted_trees

OBJECTIVE = "count:poisson"  # counts: never negative, and their spread grows with their size


def main(arguments: list[str] | None = None) -> None:
    """Train on the channel `train`, write model and metrics into the model directory."""
    given = boosted_trees.options(__doc__, arguments)
    rows = boosted_trees.read(given.train, ["date", "hr"])
    features, counts = matrix(rows), rows[LABEL].to_numpy()
    booster = boosted_trees.fit(given, OBJECTIVE, features, counts, FEATURES)
    boosted_trees.save(given.model_dir, booster, _metrics(counts, boosted_trees.fitted(booster, features)))


def _metrics(counts: npt.NDArray[np.int64], predicted: npt.NDArray[np.float32]) -> dict[str, float]:
    """How well the model fits its own training rows; the holdout judges it later, in evaluate.py."""
    return {
        "train_rmse": float(root_mean_squared_error(counts, predicted)),
        "train_mae": float(mean_absolute_error(counts, predicted)),
        "train_rows": len(counts),
    }


if __name__ == "__main__":
    main()
