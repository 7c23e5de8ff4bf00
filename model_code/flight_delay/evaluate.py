"""SageMaker processing: challenger and champion scored on the same held-out flights -> evaluation.json and plots."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from model_code.flight_delay import plots
from model_code.flight_delay.encoding import LABEL
from model_code.shared.comparison import Scores, Task, compare


def main(arguments: list[str] | None = None) -> None:
    """Compare the models in `--challenger` and `--champion` on `--holdout`."""
    compare(Task(LABEL, "probabilities", _comparable, _possible, _measure, plots.draw), arguments)


def _comparable(labels: Scores) -> str | None:
    return None if len(np.unique(labels)) > 1 else f"The holdout's {len(labels)} rows do not hold both outcomes"


def _possible(scores: Scores) -> npt.NDArray[np.bool_]:
    return (scores >= 0) & (scores <= 1)  # NaN is neither


def _measure(labels: Scores, scores: Scores) -> dict[str, float]:
    return {
        "auc": float(roc_auc_score(labels, scores)),
        "log_loss": float(log_loss(labels, scores)),
        "brier": float(brier_score_loss(labels, scores)),
    }


if __name__ == "__main__":
    main()
