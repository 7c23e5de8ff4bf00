"""The section `monitoring` of model.yaml: when this model's drift is an alarm, and AWS's own monitors beside ours."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from config.settings import Section

CLASSIFIED = frozenset({"accuracy", "auc", "brier", "f1", "log_loss"})
MEASURED = frozenset({"mae", "mape", "mse", "r2", "rmse"})
"""Metrics of two classes, and of a number: they tell what kind of problem the model solves."""

Monitor = Literal["data_quality", "model_quality"]
ProblemType = Literal["binary_classification", "multiclass_classification", "regression"]


def _once(monitors: tuple[Monitor, ...]) -> tuple[Monitor, ...]:
    if len(set(monitors)) < len(monitors):
        raise ValueError(f"found {', '.join(monitors)}; allowed: each of data_quality and model_quality once")
    return monitors


Bound = Annotated[float, Field(gt=0)]


class Monitoring(Section):
    """Bounds that are this model's own, and AWS's monitors of production's endpoint; a change takes a deployment."""

    feature_drift: Bound | None = None
    prediction_drift: Bound | None = None
    quality_loss: Bound | None = None
    """None is the bound of config/platform.yaml."""
    native: Annotated[tuple[Monitor, ...], Field(strict=False), AfterValidator(_once)] = ()
    problem_type: ProblemType | None = None
    """What model_quality computes; the metric of the evaluation tells it where it is one of the platform's."""

    def problem(self, metric: str) -> ProblemType | None:
        """The kind of problem; None if neither it nor the metric tells."""
        if self.problem_type:
            return self.problem_type
        return "binary_classification" if metric in CLASSIFIED else "regression" if metric in MEASURED else None

    def misfits(self, *, endpoint: str, capture_percent: int, metric: str) -> list[str]:
        """What of the model keeps the monitors from working; empty if they would."""
        found: list[str] = []
        if self.native and endpoint != "instance":
            found.append(f"found native with serving.endpoint: {endpoint}; allowed: with endpoint: instance, since "
                         "Model Monitor reads what real-time endpoints capture")  # fmt: skip
        if self.native and not capture_percent:
            found.append("found native with serving.capture_percent 0; allowed: 1 to 100, since captured requests are "
                         "what is monitored")  # fmt: skip
        if "model_quality" in self.native and self.problem(metric) is None:
            found.append(f"found model_quality with the metric {metric}, which tells no kind of problem; allowed: with "
                         "problem_type: binary_classification, multiclass_classification or regression")  # fmt: skip
        if self.problem_type and "model_quality" not in self.native:
            found.append("found problem_type without model_quality; allowed: leave it out, or native: [model_quality]")
        return found
