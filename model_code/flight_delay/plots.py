"""Plots of an evaluation: ROC, calibration and feature importance, challenger over champion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import xgboost as xgb
from matplotlib.axes import Axes
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score, roc_curve

matplotlib.use("Agg")  # a job has no screen

# Blue and orange of Okabe and Ito, told apart with any colour vision; line and marker differ as well.
STYLES: dict[str, dict[str, Any]] = {
    "challenger": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "champion": {"color": "#E69F00", "linestyle": "--", "marker": "s"},
}

Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


def draw(output: Path, labels: Labels, scores: Mapping[str, Scores], models: Mapping[str, Path]) -> None:
    """Write roc.png, calibration.png and importance.png."""
    figures: dict[str, Callable[[Axes], None]] = {
        "roc": lambda axes: _roc(axes, labels, scores),
        "calibration": lambda axes: _calibration(axes, labels, scores),
        "importance": lambda axes: _importance(axes, models),
    }
    for name, plot in figures.items():
        figure, axes = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
        plot(axes)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(output / f"{name}.png", dpi=110)
        plt.close(figure)


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


def _importance(axes: Axes, models: Mapping[str, Path]) -> None:
    """Share of the total gain; a champion of another kind (no model.ubj) has no bars."""
    shares = {name: _gain(folder / "model.ubj") for name, folder in models.items() if (folder / "model.ubj").is_file()}
    features = sorted(
        {feature for gain in shares.values() for feature in gain},
        key=lambda feature: [gain.get(feature, 0.0) for gain in shares.values()],
    )
    places, height = np.arange(len(features)), 0.8 / max(len(shares), 1)
    for offset, (name, gain) in enumerate(shares.items()):
        axes.barh(
            places + (len(shares) - 1) * height / 2 - offset * height,
            [gain.get(f, 0.0) for f in features],
            height,
            label=name,
            color=STYLES[name]["color"],
        )
    axes.set(title="Feature importance", xlabel="share of the total gain", yticks=places, yticklabels=features)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.legend(loc="lower right", frameon=False)


def _gain(model: Path) -> dict[str, float]:
    gains = {
        name: float(np.sum(gain))
        for name, gain in xgb.Booster(model_file=model).get_score(importance_type="total_gain").items()
    }
    total = sum(gains.values()) or 1.0
    return {name: gain / total for name, gain in gains.items()}
