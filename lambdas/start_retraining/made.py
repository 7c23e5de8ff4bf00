"""What became of one decision."""

from __future__ import annotations

from dataclasses import dataclass

from lambdas.start_retraining.decide import Decision


@dataclass(frozen=True)
class Failed:
    """What was decided could not be done; the other models of a push are not kept waiting by it."""

    model: str
    trigger: str
    reason: str


@dataclass(frozen=True)
class Made:
    """A decision, the execution that acting on it gave, and what waits because of it."""

    decision: Decision | Failed
    execution: str | None = None
    then: Made | None = None
