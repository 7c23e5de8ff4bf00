"""SageMaker script mode: training rows -> a boosted-trees model with the encoding it was trained under."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import log_loss, roc_auc_score

from model_code.flight_delay.encoding import FEATURES, FIELDS, LABEL, Encoding
from model_code.shared import boosted_trees

ENCODING_FILE = "encoding.json"


def main(arguments: list[str] | None = None) -> None:
    """Train on the channel `train`, write model, encoding and metrics into the model directory."""
    given = boosted_trees.options(__doc__, arguments)
    rows = boosted_trees.read(given.train, [*FIELDS[:6], "flight"])
    encoding = Encoding.learned_from(rows)
    matrix, labels = encoding.matrix(rows), rows[LABEL].to_numpy()
    if len(np.unique(labels)) < 2:
        raise SystemExit(f"Every one of the {len(labels)} training rows has the same outcome: nothing to learn")
    booster = boosted_trees.fit(given, "binary:logistic", matrix, labels, FEATURES)
    metrics = _metrics(labels, boosted_trees.fitted(booster, matrix))
    encoding.save(given.model_dir / ENCODING_FILE)
    boosted_trees.save(given.model_dir, booster, metrics)


def _metrics(labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> dict[str, float]:
    """How well the model fits its own training rows; the holdout judges it later, in evaluate.py."""
    return {
        "train_auc": float(roc_auc_score(labels, scores)),
        "train_log_loss": float(log_loss(labels, scores)),
        "train_rows": len(labels),
    }


if __name__ == "__main__":
    main()
