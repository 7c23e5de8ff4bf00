"""Physical names that parts of the system find each other by, and nothing else has one."""

from __future__ import annotations

from config import Settings
from contract import Model


def pipeline_name(settings: Settings, model: Model) -> str:
    """The delivery pipeline, which `start_retraining` starts by name."""
    return f"{settings.project}-{model.slug}"


def any_pipeline_name(settings: Settings) -> str:
    """Every model's pipeline: the number of models must not change what is outside their own stacks."""
    return f"{settings.project}-*"


def doorbell_name(settings: Settings) -> str:
    """The pipeline that tells of pushes to a host outside AWS; no model's has a dot."""
    return f"{settings.project}.push"


def parameter_name(settings: Settings, model: Model) -> str:
    """Where `start_retraining` reads which paths retrain the model."""
    return f"/{settings.project}/models/{model.name}"


def raw_data_parameter_name(settings: Settings, model: Model) -> str:
    """Where whoever delivers data reads where the model's raw data lands."""
    return f"/{settings.project}/raw-data/{model.name}"


def feature_job_name(model: Model) -> str:
    """The Glue job."""
    return f"{model.slug}-features"
