"""How every evaluation's plots look, and the one that all boosted trees have: feature importance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import xgboost as xgb
from matplotlib.axes import Axes

from model_code.shared.boosted_trees import MODEL_FILE

matplotlib.use("Agg")  # a job has no screen

# Blue and orange of Okabe and Ito, told apart with any colour vision; line and marker differ as well.
STYLES: dict[str, dict[str, Any]] = {
    "challenger": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "champion": {"color": "#E69F00", "linestyle": "--", "marker": "s"},
}


def write(output: Path, figures: Mapping[str, Callable[[Axes], None]]) -> None:
    """Write `<name>.png` for every figure."""
    for name, plot in figures.items():
        figure, axes = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
        plot(axes)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(output / f"{name}.png", dpi=110)
        plt.close(figure)


def importance(axes: Axes, models: Mapping[str, Path]) -> None:
    """Share of the total gain; a champion of another kind (no model file of ours) has no bars."""
    shares = {name: _gain(folder / MODEL_FILE) for name, folder in models.items() if (folder / MODEL_FILE).is_file()}
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
