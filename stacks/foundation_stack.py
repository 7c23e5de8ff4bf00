"""What every model shares in training: raw data, features, artifacts, and the delivery pipelines' store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aws_cdk import aws_s3 as s3
from constructs import Construct

from config import Settings
from stacks.crossing import Reader
from stacks.environment_stack import EnvironmentStack
from stacks.tags import TRAINING


class FoundationStack(EnvironmentStack):
    """The environment that models are trained in, with the data, artifact and pipeline buckets."""

    def __init__(self, scope: Construct, id: str, *, settings: Settings, readers: Sequence[Reader] = (),
                 **stack: Any) -> None:  # fmt: skip
        super().__init__(scope, id, settings=settings, environment=TRAINING, **stack)
        self.data = self.bucket("Data", notify=True)
        self.artifacts = self._artifacts(settings, readers)
        # Sources and Verify's output are read within one execution; a bundle has its own place among the artifacts.
        self.pipeline_store = self.bucket("PipelineStore", expires=settings.retention.staging_days)

    def _artifacts(self, settings: Settings, readers: Sequence[Reader]) -> s3.Bucket:
        # Its name is made up by CloudFormation, unless other accounts' roles have to name it.
        name = f"{settings.project}-artifacts-{self.account}-{self.region}" if readers else None
        artifacts = self.bucket("Artifacts", expires=settings.retention.registry_days, name=name)
        for reader in readers:
            self.lend(artifacts, reader)
        return artifacts
