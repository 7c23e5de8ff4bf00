"""What every model shares in training: raw data, features, artifacts, and the delivery pipelines' store."""

from __future__ import annotations

from typing import Any

from constructs import Construct

from config import Settings
from stacks.environment_stack import EnvironmentStack
from stacks.tags import TRAINING


class FoundationStack(EnvironmentStack):
    """The environment that models are trained in, with the data, artifact and pipeline buckets."""

    def __init__(self, scope: Construct, id: str, *, settings: Settings, **stack: Any) -> None:
        super().__init__(scope, id, settings=settings, environment=TRAINING, **stack)
        self.data = self.bucket("Data", notify=True)
        self.artifacts = self.bucket("Artifacts", expires=settings.retention.registry_days)
        # Sources and Verify's output are read within one execution; a bundle has its own place among the artifacts.
        self.pipeline_store = self.bucket("PipelineStore", expires=settings.retention.staging_days)
