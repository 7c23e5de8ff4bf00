"""Plots of an evaluation: predicted against actual, residuals by hour and feature importance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from sklearn.metrics import root_mean_squared_error

from model_code.bike_demand.encoding import LABEL
from model_code.shared import plots
from model_code.shared.comparison import Scores
from model_code.shared.plots import STYLES


def draw(output: Path, rows: pd.DataFrame, scores: Mapping[str, Scores], models: Mapping[str, Path]) -> None:
    """Write predicted.png, residuals.png and importance.png."""
    plots.write(
        output,
        {
            "predicted": lambda axes: _predicted(axes, rows, scores),
            "residuals": lambda axes: _residuals(axes, rows, scores),
            "importance": lambda axes: plots.importance(axes, models),
        },
    )


def _predicted(axes: Axes, rows: pd.DataFrame, scores: Mapping[str, Scores]) -> None:
    counts = rows[LABEL].to_numpy()
    largest = max(counts.max(), *(values.max() for values in scores.values())) * 1.05
    axes.plot([0, largest], [0, largest], color="0.6", linestyle=":", label="perfect")
    for name, values in scores.items():
        style = {**STYLES[name], "linestyle": "", "markersize": 3, "alpha": 0.6}
        axes.plot(counts, values, **style, label=f"{name}, RMSE {root_mean_squared_error(counts, values):.1f}")
    axes.set(
        title=f"Predicted against actual in {len(rows):,} held-out hours",
        xlabel="bikes in use",
        ylabel="bikes predicted",
        xlim=(0, largest),
        ylim=(0, largest),
        aspect="equal",
    )
    axes.legend(loc="upper left", frameon=False)


def _residuals(axes: Axes, rows: pd.DataFrame, scores: Mapping[str, Scores]) -> None:
    """Per hour of the day the median, between the tenth and the ninetieth of a hundred."""
    axes.axhline(0, color="0.6", linestyle=":")
    for name, values in scores.items():
        by_hour = (rows[LABEL] - values).groupby(rows["hr"]).quantile([0.1, 0.5, 0.9]).unstack()
        hours = by_hour.index.to_numpy(dtype=np.float64)
        axes.fill_between(hours, by_hour[0.1], by_hour[0.9], color=STYLES[name]["color"], alpha=0.15, linewidth=0)
        axes.plot(hours, by_hour[0.5], **{**STYLES[name], "markersize": 4}, label=name)
    axes.set(
        title="Residuals by hour: median, and where 80 % lie",
        xlabel="hour of the day",
        ylabel="actual minus predicted bikes",
        xticks=range(0, 24, 3),
    )
    axes.legend(loc="upper left", frameon=False)
