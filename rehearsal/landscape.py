"""What is deployed, read from stack outputs only: models, pipelines, groups, reconcilers and endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rehearsal.place import Place

NO_ENDPOINT = "none"
"""The output `Endpoint` of a serving stack whose model is for batch."""


class ClientOf(Protocol):
    """`client_of("sagemaker", place)` gives a boto3 client of the running rehearsal; without a place, training's."""

    def __call__(self, service: str, place: Place | None = None, /) -> Any: ...


class NotDeployed(Exception):
    """Asked for something no deployed stack has; the message says what there is."""


@dataclass
class ModelParts:
    """One model's parts; `endpoints`, `reconcilers` (state machine ARNs) and `places` are by environment."""

    name: str
    pipeline: str = ""
    group: str = ""
    monitor: str = ""
    """The state machine (ARN) that looks for drift, where models are trained."""
    raw_data: str = ""
    endpoints: dict[str, str] = field(default_factory=dict)
    reconcilers: dict[str, str] = field(default_factory=dict)
    serving_stacks: dict[str, str] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    live_models: dict[str, str] = field(default_factory=dict)
    """Where no endpoint is to be: the SageMaker model that is live, "" if there is none yet."""
    requests: dict[str, str] = field(default_factory=dict)
    """Where an asynchronous endpoint reads what it is asked, an s3:// prefix."""

    @property
    def environments(self) -> list[str]:
        return sorted({*self.endpoints, *self.live_models}, key=_release_order)


@dataclass
class Landscape:
    """Everything deployed: `models` by name, the `repository`'s name, the function `start_retraining` and its log group
    ("" if none)."""

    models: dict[str, ModelParts]
    repository: str = ""
    places: tuple[Place, ...] = ()
    start_retraining: str = ""
    start_retraining_log: str = ""

    def model(self, name: str) -> ModelParts:
        if name not in self.models:
            known = ", ".join(sorted(self.models)) or "none: deploy first"
            raise NotDeployed(f"no deployed model is called {name!r}; there is {known}")
        return self.models[name]

    def endpoint(self, model: str, environment: str) -> str:
        parts = self.model(model)
        if environment in parts.live_models:
            raise NotDeployed(f"{model} has no endpoint in {environment} (serving.endpoint: none); it is for batch")
        if environment not in parts.endpoints:
            known = ", ".join(parts.environments) or "none"
            raise NotDeployed(f"{model} has no environment {environment!r}; there is {known}")
        return parts.endpoints[environment]


def in_place(client_of: ClientOf, place: Place) -> ClientOf:
    """Clients of one place, whichever is asked for."""
    return lambda service, _=None, /: client_of(service, place)


def survey(client_of: ClientOf, places: Sequence[Place]) -> Landscape:
    """Read the outputs of every stack in every place."""
    landscape = Landscape({}, places=tuple(places))
    for place in places:
        pages = client_of("cloudformation", place).get_paginator("describe_stacks").paginate()
        for stack in (stack for page in pages for stack in page["Stacks"]):
            outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", ())}
            _note(landscape, stack["StackName"], outputs, place)
    return landscape


def _note(landscape: Landscape, stack_name: str, outputs: dict[str, str], place: Place) -> None:
    landscape.repository = outputs.get("Repository", landscape.repository)
    landscape.start_retraining = outputs.get("StartRetraining", landscape.start_retraining)
    landscape.start_retraining_log = outputs.get("StartRetrainingLog", landscape.start_retraining_log)
    name = outputs.get("Model")
    if name is None:
        return
    parts = landscape.models.setdefault(name, ModelParts(name))
    parts.pipeline = outputs.get("Pipeline", parts.pipeline)
    parts.monitor = outputs.get("Monitor", parts.monitor)
    parts.group = outputs.get("ModelPackageGroup", parts.group)
    parts.raw_data = outputs.get("RawData", parts.raw_data)
    if environment := outputs.get("Environment"):
        parts.places[environment] = place
        if endpoint := outputs.get("Endpoint"):
            parts.serving_stacks[environment] = stack_name
            if endpoint == NO_ENDPOINT:
                parts.live_models[environment] = outputs.get("LiveModel", "")
            else:
                parts.endpoints[environment] = endpoint
        if requests := outputs.get("Requests"):
            parts.requests[environment] = requests
        if reconciler := outputs.get("Reconciler"):
            parts.reconcilers[environment] = reconciler


def _release_order(environment: str) -> tuple[bool, str]:
    """Production is released last, so it is listed last."""
    return environment == "production", environment
