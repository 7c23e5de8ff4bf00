"""The schema of `model.yaml`: what a data scientist states about a model, with the platform's defaults."""

from __future__ import annotations

import json
import keyword
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from config.document import shown
from config.settings import InstanceType, Section, WorkerType
from contract.framework import FRAMEWORKS, Image
from contract.monitoring import Monitoring
from contract.schedule import schedule_error

MAXIMUM_SLUG = 26
"""A run is `<slug>-<uuid>` and names SageMaker jobs, which take 63 characters."""
MAXIMUM_HYPERPARAMETERS = 90
"""SageMaker takes 100, of which the platform needs a few."""
LOSSES = frozenset({"log_loss", "brier", "mae", "mse", "rmse", "mape"})
"""Metrics that are better when they are smaller."""
PLATFORM_METRICS = ("accuracy", "auc", "brier", "f1", "log_loss", "mae", "mse", "r2", "rmse")
"""What the platform's own evaluation computes."""
RESERVED_NAMES = frozenset({"shared"})
RESERVED_ARGUMENTS = frozenset({"conf", "debug", "mode", "class", "job_name", "raw", "output", "as_of", "model", "run"})
"""Glue's own arguments and the platform's."""


def _scalar(value: object) -> bool | int | float | str:
    if not isinstance(value, bool | int | float | str) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"found {shown(value)}; allowed: text, a finite number, true or false")
    return value


LONGEST_ROLLOUT_MINUTES = 6 * 60
"""SageMaker gives a rollout 8 hours, of which instances need some to start."""
NOT_FOR = {
    "instance": frozenset({"serverless"}), "async": frozenset({"serverless", "shadow"}),
    "serverless": frozenset({"instance_type", "instances", "rollout", "scaling", "capture_percent", "shadow"}),
    "none": frozenset({"instance_type", "instances", "rollout", "scaling", "capture_percent", "serverless", "alarms",
                       "shadow"}),
}  # fmt: skip
"""Keys of `serving` that a kind of endpoint has no use for (serverless: SageMaker neither shifts nor captures)."""


Scalar = Annotated[bool | int | float | str, PlainValidator(_scalar)]


def model_name(text: str) -> str:
    """A name as the contract allows it, or ValueError."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", text) or keyword.iskeyword(text):
        raise ValueError(f"found {text!r}; allowed: a lower-case Python identifier such as flight_delay")
    if len(text) > MAXIMUM_SLUG:
        raise ValueError(f"found {text!r} with {len(text)} characters; allowed: at most {MAXIMUM_SLUG}")
    if text in RESERVED_NAMES:
        raise ValueError(f"found {text!r}, which is reserved; allowed: any other name")
    return text


def _script(text: str) -> str:
    if not re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*/)*[A-Za-z_][A-Za-z0-9_]*\.py", text):
        raise ValueError(f"found {text!r}; allowed: a Python file inside the model's folder, such as train.py")
    return text


def _watched(text: str) -> str:
    if not re.fullmatch(r"model_code(/[A-Za-z_][A-Za-z0-9_]*)+", text):
        raise ValueError(f"found {text!r}; allowed: a folder below model_code, such as model_code/shared")
    return text


def _schedule(text: str) -> str:
    if error := schedule_error(text):
        raise ValueError(f"found {text!r}; {error}")
    return text


def _arguments(values: dict[str, Scalar]) -> dict[str, Scalar]:
    _check_values(values)
    for key in values:
        if key in RESERVED_ARGUMENTS:
            raise ValueError(f"found {key!r}, which Glue or the platform sets; allowed: names other than "
                             f"{', '.join(sorted(RESERVED_ARGUMENTS))}")  # fmt: skip
    return values


def _hyperparameters(values: dict[str, Scalar]) -> dict[str, Scalar]:
    _check_values(values)
    if reserved := sorted(key for key in values if key.startswith("sagemaker_")):
        raise ValueError(f"found {', '.join(reserved)}; allowed: names that do not start with sagemaker_")
    return values


def _check_values(values: dict[str, Scalar]) -> None:
    if len(values) > MAXIMUM_HYPERPARAMETERS:
        raise ValueError(f"found {len(values)} entries; allowed: at most {MAXIMUM_HYPERPARAMETERS}")
    for key, value in values.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", key):
            raise ValueError(f"found the name {key!r}; allowed: [a-z][a-z0-9_]*, at most 64 characters")
        if len(as_text(value)) > 2500 or not as_text(value).isprintable():
            raise ValueError(f"{key} has {len(as_text(value))} characters; allowed: one line of at most 2500")
        if isinstance(value, str) and (value.startswith("-") or not value):
            raise ValueError(f"found {value!r} for {key}; allowed: text that is not empty and has no leading '-'")


def as_text(value: Scalar) -> str:
    """A value as jobs receive it: all arguments and hyperparameters are strings."""
    return value if isinstance(value, str) else json.dumps(value)


Name = Annotated[str, AfterValidator(model_name)]
Script = Annotated[str, StringConstraints(max_length=200), AfterValidator(_script)]
# All of a model's together have to fit into the SSM parameter that start_retraining reads, which takes 4 KB.
Watched = Annotated[str, StringConstraints(max_length=150), AfterValidator(_watched)]
Schedule = Annotated[str, StringConstraints(max_length=256), AfterValidator(_schedule)]
Description = Annotated[str, StringConstraints(max_length=250, pattern=r"^[^\x00-\x1f\x7f]*$")]
Metric = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Column = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]


class Framework(Section):
    """A prebuilt SageMaker image, run in script mode."""

    name: str
    version: str

    @property
    def image(self) -> Image:
        return FRAMEWORKS[self.name, self.version]

    @model_validator(mode="after")
    def _known(self) -> Framework:
        if (self.name, self.version) not in FRAMEWORKS:
            known = ", ".join(f'{{name: {name}, version: "{version}"}}' for name, version in FRAMEWORKS)
            raise ValueError(f"found {self.name} {self.version}; allowed: {known}")
        return self


class Features(Section):
    """The feature job: a Glue PySpark script and its size."""

    script: Script = "features.py"
    worker_type: WorkerType = "G.1X"
    workers: Annotated[int, Field(ge=2)] = 2
    timeout_minutes: Annotated[int, Field(ge=1)] = 60
    arguments: Annotated[dict[str, Scalar], AfterValidator(_arguments)] = Field(default_factory=dict)


class Training(Section):
    """The training job."""

    script: Script = "train.py"
    instance_type: InstanceType = "ml.m6i.large"
    instance_count: Annotated[int, Field(ge=1)] = 1
    volume_gb: Annotated[int, Field(ge=1)] = 30
    max_runtime_minutes: Annotated[int, Field(ge=1)] = 60
    spot: bool = True
    hyperparameters: Annotated[dict[str, Scalar], AfterValidator(_hyperparameters)] = Field(default_factory=dict)


class Guard(Section):
    """A bound that a challenger's metric must keep, whatever the champion's is."""

    metric: Metric
    at_most: float | None = None
    at_least: float | None = None

    @model_validator(mode="after")
    def _bounds(self) -> Guard:
        if self.at_most is None and self.at_least is None:
            raise ValueError("found a guard without a bound; allowed: at_most, at_least or both")
        if self.at_most is not None and self.at_least is not None and self.at_most < self.at_least:
            raise ValueError(f"found at_least {self.at_least} above at_most {self.at_most}; allowed: a range")
        return self


def _goal(data: Mapping[str, Any]) -> Literal["maximize", "minimize"]:
    return "minimize" if data.get("metric") in LOSSES else "maximize"


class Evaluation(Section):
    """How challenger and champion are compared; without a script the platform's own evaluation runs."""

    script: Script = "evaluate.py"
    metric: Metric
    goal: Literal["maximize", "minimize"] = Field(default_factory=_goal)
    minimum_improvement: Annotated[float, Field(ge=0)] = 0.0
    guards: Annotated[tuple[Guard, ...], Field(strict=False, max_length=20)] = ()
    label: Column = "label"
    instance_type: InstanceType = "ml.m6i.large"
    max_runtime_minutes: Annotated[int, Field(ge=1)] = 30


class Instances(Section):
    """How few and how many instances production may have; between the two it scales with its load (off by default)."""

    minimum: Annotated[int, Field(ge=1)] = 2
    maximum: Annotated[int, Field(ge=1)] = 2

    @model_validator(mode="after")
    def _range(self) -> Instances:
        if self.minimum > self.maximum:
            raise ValueError(f"found minimum {self.minimum} above maximum {self.maximum}; allowed: a range")
        return self


class Rollout(Section):
    """How production's traffic moves to a new version (staging: all at once)."""

    type: Literal["all_at_once", "canary", "linear"] = "all_at_once"
    percent: Annotated[int, Field(ge=1, le=50)] = 10
    bake_minutes: Annotated[int, Field(ge=0, le=60)] = 5

    @property
    def gradual(self) -> bool:
        return self.type != "all_at_once"

    @property
    def bakes(self) -> int:
        """How often the new fleet is watched for `bake_minutes`: after every step, the last one included."""
        return {"all_at_once": 1, "canary": 2, "linear": math.ceil(100 / self.percent)}[self.type]

    @property
    def minutes(self) -> int:
        """How long a rollout watches in all."""
        return self.bakes * self.bake_minutes

    @model_validator(mode="after")
    def _steps(self) -> Rollout:
        if not self.gradual and "percent" in self.model_fields_set:
            raise ValueError("found percent with all_at_once; allowed: percent with canary or linear")
        if self.type == "linear" and self.percent < 10:
            raise ValueError(f"found linear steps of {self.percent} percent; allowed: 10 to 50")
        if self.minutes > LONGEST_ROLLOUT_MINUTES:
            raise ValueError(f"found {self.bakes} steps of {self.bake_minutes} minutes; "
                             f"allowed: at most {LONGEST_ROLLOUT_MINUTES} minutes in all")  # fmt: skip
        return self


Percent = Annotated[float, Field(gt=0, le=100)]


class Alarms(Section):
    """What rolls a new fleet back while it bakes, and is told about ever after."""

    errors_5xx_percent: Percent = 1.0
    errors_4xx_percent: Percent = 10.0
    invocation_errors_percent: Percent = 10.0
    p99_latency_ms: Annotated[float, Field(gt=0, le=60_000)] = 1000.0


class Scaling(Section):
    """When production grows and shrinks between `instances.minimum` and `instances.maximum`: by each instance's
    invocations, an asynchronous endpoint by the requests that wait for each instance."""

    invocations_per_minute: Annotated[int, Field(ge=1)] = 1000
    backlog_per_instance: Annotated[int, Field(ge=1)] = 5
    grow_after_seconds: Annotated[int, Field(ge=0, le=3600)] = 60
    shrink_after_seconds: Annotated[int, Field(ge=0, le=3600)] = 300


class Serverless(Section):
    """The size of a serverless endpoint."""

    memory_mb: Literal[1024, 2048, 3072, 4096, 5120, 6144] = 2048
    maximum_concurrency: Annotated[int, Field(ge=1, le=200)] = 5


class Serving(Section):
    """The endpoint (staging: one instance)."""

    script: Script = "inference.py"
    endpoint: Literal["instance", "serverless", "async", "none"] = "instance"
    """`none` costs nothing while idle: versions are registered and approved, for batch alone."""
    instance_type: InstanceType = "ml.m6i.large"
    instances: Instances = Instances()
    rollout: Rollout = Rollout()
    alarms: Alarms = Alarms()
    scaling: Scaling = Scaling()
    serverless: Serverless = Serverless()
    capture_percent: Annotated[int, Field(ge=0, le=100)] = 20
    shadow: bool = False
    """Whether a version that staging accepted gets a copy of production's requests before it is approved."""

    @model_validator(mode="after")
    def _shadow_needs_capture(self) -> Serving:
        if self.shadow and not self.capture_percent:
            raise ValueError("found shadow with capture_percent 0; allowed: 1 to 100, since the answers that are "
                             "compared are the captured ones")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _fits_the_endpoint(self) -> Serving:
        foreign = sorted(self.model_fields_set & NOT_FOR[self.endpoint])
        if foreign:
            raise ValueError(f"found {', '.join(foreign)} with endpoint: {self.endpoint}, which knows no such thing; "
                             f"allowed: leave {'it' if len(foreign) == 1 else 'them'} out")  # fmt: skip
        if self.rollout.gradual and self.instances.minimum < 2:
            raise ValueError(
                f"found a {self.rollout.type} rollout with instances.minimum {self.instances.minimum}; "
                "allowed: at least 2, so that at most half of the fleet changes in the first step"
            )
        return self


class Retraining(Section):
    """What retrains the model besides a push."""

    schedule: Schedule | None = None
    on_new_data: bool = True
    on_drift: bool = True
    cool_down_hours: Annotated[int, Field(ge=0, le=720)] = 6


class Model(Section):
    """`model.yaml`, whole."""

    name: Name
    description: Description = ""
    framework: Framework
    features: Features = Features()
    training: Training = Training()
    evaluation: Evaluation
    serving: Serving = Serving()
    retraining: Retraining = Retraining()
    monitoring: Monitoring = Monitoring()
    approval: Literal["automatic", "manual"] = "automatic"
    watch: Annotated[tuple[Watched, ...], Field(strict=False, max_length=20)] = ()

    @field_validator("monitoring")
    @classmethod
    def _monitors_fit(cls, monitoring: Monitoring, others: ValidationInfo) -> Monitoring:
        serving, evaluation = others.data.get("serving"), others.data.get("evaluation")
        if serving is None or evaluation is None:  # which is told of those
            return monitoring
        misfits = monitoring.misfits(endpoint=serving.endpoint, capture_percent=serving.capture_percent,
                                     metric=evaluation.metric)  # fmt: skip
        if misfits:
            raise ValueError("; ".join(misfits))
        return monitoring

    @property
    def slug(self) -> str:
        """The name in AWS resource names: `flight-delay`."""
        return self.name.replace("_", "-")

    @property
    def title(self) -> str:
        """The name in stack names: `FlightDelay`."""
        return "".join(part.capitalize() for part in self.name.split("_"))

    @property
    def folder(self) -> str:
        """Where the model's code is, relative to the repository's root."""
        return f"model_code/{self.name}"

    @property
    def paths(self) -> tuple[str, ...]:
        """The folders whose change retrains the model: its own, then what it watches."""
        return (self.folder, *self.watch)
