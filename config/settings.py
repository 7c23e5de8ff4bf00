"""The platform's settings and the guardrails that models are steered within, read from `platform.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from config.budgets import Budgets
from config.document import Invalid, Problem, read, validated
from config.environments import Environment, Environments
from config.network import Networks
from config.section import Section
from config.source import CodeCommitSource, Source

PLATFORM_FILE = Path(__file__).with_name("platform.yaml")

InstanceType = Annotated[str, StringConstraints(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")]
InstanceTypes = Annotated[tuple[InstanceType, ...], Field(strict=False, min_length=1)]
WorkerType = Literal["G.1X", "G.2X", "G.4X", "G.8X"]
Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$", max_length=254)]
_POLICY = r"^(arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/)?[\w+=,.@-]+(/[\w+=,.@-]+)*$"
PermissionsBoundary = Annotated[str, StringConstraints(pattern=_POLICY, max_length=2048)]
"""A managed policy's name, with its path if it has one, which each environment's account has; or its ARN."""
# What CloudWatch Logs accepts.
RetentionDays = Literal[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653
]  # fmt: skip


HOURS_OF_ALARM = 168


class FeatureLimits(Section):
    """What a feature job (Glue) may ask for."""

    worker_types: Annotated[tuple[WorkerType, ...], Field(strict=False, min_length=1)]
    maximum_workers: Annotated[int, Field(ge=2, le=299)]
    maximum_runtime_minutes: Annotated[int, Field(ge=1, le=2880)]


class TrainingLimits(Section):
    """What a training job may ask for."""

    instance_types: InstanceTypes
    maximum_instances: Annotated[int, Field(ge=1, le=100)]
    maximum_runtime_minutes: Annotated[int, Field(ge=1, le=7200)]
    maximum_volume_gb: Annotated[int, Field(ge=1, le=16384)]


class EvaluationLimits(Section):
    """What an evaluation (processing job) may ask for."""

    instance_types: InstanceTypes
    maximum_runtime_minutes: Annotated[int, Field(ge=1, le=7200)]


class ServingLimits(Section):
    """What an endpoint may ask for."""

    instance_types: InstanceTypes
    maximum_instances: Annotated[int, Field(ge=1, le=100)]


class BundleLimits(Section):
    """How large a model's code may be, packed files before compression."""

    maximum_file_mb: Annotated[int, Field(ge=1, le=1024)]
    maximum_total_mb: Annotated[int, Field(ge=1, le=1024)]


class Guardrails(Section):
    """What a model.yaml may ask for."""

    features: FeatureLimits
    training: TrainingLimits
    evaluation: EvaluationLimits
    serving: ServingLimits
    bundle: BundleLimits


Days = Annotated[int, Field(ge=1, le=3650)]


class Retention(Section):
    """How long what the platform writes is kept. Raw data and features have no age: lineage names them."""

    logs_days: RetentionDays = 90
    account_logs: bool = True
    """Whether the log groups that an account's SageMaker jobs share are made and kept here; no, if they are there."""
    captured_days: Days = 30
    """Requests and answers of production; how many are kept, says each model's `serving.capture_percent`."""
    staging_days: Days = 30
    """What one execution of a pipeline hands from stage to stage."""
    registry_days: Annotated[int, Field(ge=180, le=3650)] | None = 1095
    """Artifacts of registered versions; None keeps them for ever."""
    access_logs_days: Days = 365
    old_versions_days: Days = 90
    """How long an overwritten or deleted object can be restored."""


class Shadow(Section):
    """For models with `serving.shadow`: how long a version gets copies of production's requests before it is judged."""

    minutes: Annotated[int, Field(ge=1, le=1440)] = 60


class Monitoring(Section):
    """When drift becomes an alarm: `breaches` of the last `of` runs above a bound."""

    every_hours: Annotated[int, Field(ge=1, le=168)] = 24
    breaches: Annotated[int, Field(ge=1)] = 2
    of: Annotated[int, Field(ge=1)] = 3
    feature_drift: Annotated[float, Field(gt=0)] = 1.0
    prediction_drift: Annotated[float, Field(gt=0)] = 1.0
    quality_loss: Annotated[float, Field(gt=0)] = 0.1

    @property
    def clearing_hours(self) -> int:
        """How long an alarm can stay on although a retraining helped: until too few runs of before are looked at."""
        return self.every_hours * (self.of - self.breaches + 2)

    @model_validator(mode="after")
    def _alarm(self) -> Monitoring:
        if self.breaches > self.of:
            raise ValueError(f"found breaches {self.breaches} above of {self.of}; allowed: at most as many")
        if self.every_hours * self.of > HOURS_OF_ALARM:
            raise ValueError(
                f"found every_hours {self.every_hours} x of {self.of}; allowed: together at most {HOURS_OF_ALARM}, "
                "since a CloudWatch alarm looks back seven days"
            )
        return self


class Retraining(Section):
    """What no storm of triggers gets past, for each model: `start_retraining` defers what is too much."""

    maximum_per_day: Annotated[int, Field(ge=1, le=1000)] = 20
    settling_minutes: Annotated[int, Field(ge=1, le=60)] = 15
    longest_wait_hours: Annotated[int, Field(ge=1, le=48)] = 6


class Notifications(Section):
    """Who is told about failures and waiting approvals."""

    email: Email | None = None


class Settings(Section):
    """`platform.yaml`, whole."""

    project: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{1,15}$")]
    environments: Environments = Environments()
    source: Source = CodeCommitSource()
    guardrails: Guardrails
    monitoring: Monitoring = Monitoring()
    retention: Retention = Retention()
    shadow: Shadow = Shadow()
    retraining: Retraining = Retraining()
    destroy_data: bool = False
    permissions_boundary: PermissionsBoundary | None = None
    network: Networks = Networks()
    budgets: Budgets = Budgets()
    notifications: Notifications = Notifications()

    @property
    def region(self) -> str | None:
        """The one region of all environments; None is the deployer's."""
        return self.environments.training.region


def load_settings(path: Path = PLATFORM_FILE) -> Settings:
    """The platform's settings, or Invalid with every problem in the file."""
    return validated(read(path, f"{path.parent.name}/{path.name}"), Settings)


__all__ = ["Environment", "Guardrails", "Invalid", "Problem", "Section", "Settings", "load_settings"]
