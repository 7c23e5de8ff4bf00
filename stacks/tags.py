"""The two tags that everything carries, by which costs are told apart and budgets count."""

from __future__ import annotations

from aws_cdk import Tags
from constructs import IConstruct

MODEL, ENVIRONMENT = "pushline:model", "pushline:environment"
SHARED = "shared"
"""The model, where all of them use it."""
TRAINING = "training"
"""The environment of what all environments of an account share: data, registry and repository are training's."""


def tag(scope: IConstruct, *, model: str, environment: str) -> None:
    """Tag everything in the scope that AWS lets tag."""
    Tags.of(scope).add(MODEL, model)
    Tags.of(scope).add(ENVIRONMENT, environment)
