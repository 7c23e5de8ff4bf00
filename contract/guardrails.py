"""What a model.yaml asks for, against what the platform allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from config.document import Location
from config.settings import Guardrails
from contract.model import Model

Finding = tuple[Location, str]
PLATFORM = "config/platform.yaml"


def beyond(model: Model, limits: Guardrails) -> Iterator[Finding]:
    """Every value of a model that the platform does not allow: its key, and what is allowed."""
    features, training, evaluation, serving = model.features, model.training, model.evaluation, model.serving
    yield from _one_of(features.worker_type, limits.features.worker_types, "features", "worker_type")
    yield from _at_most(features.workers, limits.features.maximum_workers, "features", "workers")
    minutes = limits.features.maximum_runtime_minutes
    yield from _at_most(features.timeout_minutes, minutes, "features", "timeout_minutes")
    yield from _one_of(training.instance_type, limits.training.instance_types, "training", "instance_type")
    yield from _at_most(training.instance_count, limits.training.maximum_instances, "training", "instance_count")
    minutes = limits.training.maximum_runtime_minutes
    yield from _at_most(training.max_runtime_minutes, minutes, "training", "max_runtime_minutes")
    yield from _at_most(training.volume_gb, limits.training.maximum_volume_gb, "training", "volume_gb")
    yield from _one_of(evaluation.instance_type, limits.evaluation.instance_types, "evaluation", "instance_type")
    minutes = limits.evaluation.maximum_runtime_minutes
    yield from _at_most(evaluation.max_runtime_minutes, minutes, "evaluation", "max_runtime_minutes")
    yield from _one_of(serving.instance_type, limits.serving.instance_types, "serving", "instance_type")
    yield from _at_most(serving.instances.maximum, limits.serving.maximum_instances, "serving", "instances", "maximum")


def _one_of(value: str, allowed: Sequence[str], *key: str) -> Iterator[Finding]:
    if value not in allowed:
        yield key, f"found {value!r}; allowed: {', '.join(allowed)} ({PLATFORM}, guardrails.{key[0]})"


def _at_most(value: int, limit: int, *key: str) -> Iterator[Finding]:
    if value > limit:
        yield key, f"found {value}; allowed: at most {limit} ({PLATFORM}, guardrails.{key[0]})"
