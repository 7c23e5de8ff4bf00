"""Plots of an evaluation: ROC, calibration and feature importance, challenger over champion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score, roc_curve

from model_code.flight_delay.encoding import LABEL
from model_code.shared import plots
from model_code.shared.comparison import Scores
from model_code.shared.plots import STYLES

Labels = npt.NDArray[np.int64]


def draw(output: Path, rows: pd.DataFrame, scores: Mapping[str, Scores], models: Mapping[str, Path]) -> None:
    """Write roc.png, calibration.png and importance.png."""
    labels = rows[LABEL].to_numpy()
    plots.write(
        output,
        {
            "roc": lambda axes: _roc(axes, labels, scores),
            "calibration": lambda axes: _calibration(axes, labels, scores),
            "importance": lambda axes: plots.importance(axes, models),
        },
    )


def _roc(axes: Axes, labels: Labels, scores: Mapping[str, Scores]) -> None:
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="chance")
    for name, values in scores.items():
        false_alarms, hits, _ = roc_curve(labels, values)
        style = {**STYLES[name], "marker": ""}
        axes.plot(false_alarms, hits, **style, label=f"{name}, AUC {roc_auc_score(labels, values):.4f}")
    axes.set(
        title=f"ROC on {len(labels):,} held-out flights",
        xlabel="share of punctual flights called late",
        ylabel="share of late flights found",
        aspect="equal",
    )
    axes.legend(loc="lower right", frameon=False)


def _calibration(axes: Axes, labels: Labels, scores: Mapping[str, Scores]) -> None:
    """Ten groups of equal size: what was predicted against what happened."""
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="perfect")
    largest = 0.0
    for name, values in scores.items():
        happened, predicted = calibration_curve(labels, values, n_bins=10, strategy="quantile")
        axes.plot(predicted, happened, **STYLES[name], label=name)
        largest = max(largest, predicted[-1], *happened)
    shown = (0.0, min(1.0, largest * 1.1))
    axes.set(
        title=f"Calibration on {len(labels):,} held-out flights",
        xlabel="predicted probability of being late",
        ylabel="share that was late",
        xlim=shown,
        ylim=shown,
        aspect="equal",
    )
    axes.legend(loc="upper left", frameon=False)
