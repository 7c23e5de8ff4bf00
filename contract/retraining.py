"""The retraining input: everything that the retraining state machine needs to know about one run.

Verify writes it with a serializer, so that no text of a commit or a trigger is ever spliced into a definition.
The push goes on with `stacks/retrain_workflow.py`, which reads it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contract.bundle import Bundle
from contract.model import Model, as_text

REQUIRED = ("ARTIFACTS", "COMMIT", "TRIGGER", "REASON", "AS_OF", "EXECUTION")
TRIGGERS = ("push", "schedule", "data", "drift", "manual")


class BadTrigger(Exception):
    """Verify's environment does not say what to retrain; the message names the variable."""


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """What started this retraining, from the pipeline's variables."""

    artifacts: str
    commit: str
    trigger: str
    reason: str
    as_of: str
    execution: str

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Trigger:
        """From Verify's process environment; BadTrigger names what is missing or wrong."""
        if missing := [name for name in REQUIRED if not variables.get(name)]:
            raise BadTrigger(f"the environment lacks {', '.join(missing)}")
        values = {name.lower(): variables[name] for name in REQUIRED}
        if values["trigger"] not in TRIGGERS:
            raise BadTrigger(f"TRIGGER: found {values['trigger']!r}; allowed: {', '.join(TRIGGERS)}")
        try:
            dt.date.fromisoformat(values["as_of"])
        except ValueError:
            raise BadTrigger(f"AS_OF: found {values['as_of']!r}; allowed: a date such as 2013-03-01") from None
        return cls(**values)


def retraining_input(model: Model, trigger: Trigger, bundle: Bundle) -> dict[str, Any]:
    """The input, by the state machine's names; all arguments and hyperparameters are strings."""
    place = f"s3://{trigger.artifacts}/bundles/{model.slug}/{bundle.sha256}"
    return {
        "model": model.name,
        "slug": model.slug,
        "trigger": trigger.trigger,
        "reason": trigger.reason,
        "commit": trigger.commit,
        "pipeline_execution": trigger.execution,
        "as_of": trigger.as_of,
        "bundle": {"uri": f"{place}/sourcedir.tar.gz", "sha256": bundle.sha256},
        "features": _features(model, place),
        "training": _training(model),
        "evaluation": _evaluation(model),
        "serving": {
            "instance_type": model.serving.instance_type,
            "minimum_instances": model.serving.instances.minimum,
            "maximum_instances": model.serving.instances.maximum,
        },
        "approval": model.approval,
        "sample_request": f"{place}/{bundle.sample_name}",
    }


def _features(model: Model, place: str) -> dict[str, Any]:
    features = model.features
    return {
        "script_uri": f"{place}/features.py",
        "modules_uri": f"{place}/modules.zip",
        "worker_type": features.worker_type,
        "workers": features.workers,
        "timeout_minutes": features.timeout_minutes,
        "arguments": {f"--{name}": as_text(value) for name, value in features.arguments.items()},
    }


def _training(model: Model) -> dict[str, Any]:
    training = model.training
    seconds = training.max_runtime_minutes * 60
    return {
        "instance_type": training.instance_type,
        "instance_count": training.instance_count,
        "volume_gb": training.volume_gb,
        "max_runtime_seconds": seconds,
        # Spot may wait as long again for capacity.
        "max_wait_seconds": 2 * seconds if training.spot else seconds,
        "spot": training.spot,
        "hyperparameters": {name: as_text(value) for name, value in training.hyperparameters.items()},
    }


def _evaluation(model: Model) -> dict[str, Any]:
    evaluation = model.evaluation
    return {
        "instance_type": evaluation.instance_type,
        "max_runtime_seconds": evaluation.max_runtime_minutes * 60,
        "metric": evaluation.metric,
        "goal": evaluation.goal,
        "minimum_improvement": evaluation.minimum_improvement,
        "guards": [guard.model_dump(exclude_none=True) for guard in evaluation.guards],
    }
