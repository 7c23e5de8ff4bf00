"""The AWS services that are the rehearsal's own."""

from __future__ import annotations

from rehearsal.application_autoscaling import ApplicationAutoScaling
from rehearsal.codebuild import CodeBuild
from rehearsal.codecommit import CodeCommit
from rehearsal.codepipeline import CodePipeline
from rehearsal.glue import Glue
from rehearsal.sagemaker import SageMaker
from rehearsal.sagemaker.runtime import SageMakerRuntime
from rehearsal.scheduler import Scheduler
from rehearsal.service import Service

SERVICES: tuple[type[Service], ...] = (
    CodeCommit,
    CodeBuild,
    CodePipeline,
    Glue,
    SageMaker,
    SageMakerRuntime,
    ApplicationAutoScaling,
    Scheduler,
)
