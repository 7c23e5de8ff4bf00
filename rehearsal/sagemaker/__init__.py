"""SageMaker: training and processing jobs, the model registry, hosting."""

from __future__ import annotations

from typing import ClassVar

from rehearsal.sagemaker.constraints import enforce
from rehearsal.sagemaker.hosting import Hosting
from rehearsal.sagemaker.model_monitor_types import model_monitor_types
from rehearsal.sagemaker.processing import ProcessingJobs
from rehearsal.sagemaker.registry import ModelRegistry
from rehearsal.sagemaker.resources import resource_types
from rehearsal.sagemaker.tags import Permissions
from rehearsal.sagemaker.training import TrainingJobs
from rehearsal.service import Caller, Params, Permission, ResourceType, model


class SageMaker(TrainingJobs, ProcessingJobs, ModelRegistry, Hosting):
    """Each mixin brings operations and the IAM permissions that they take."""

    name = "sagemaker"
    PERMISSIONS: ClassVar[Permissions] = {}

    def permissions(self, operation: str, params: Params, caller: Caller) -> list[Permission]:
        for part in type(self).__mro__:
            check = getattr(part, "PERMISSIONS", {}).get(operation)
            if check is not None:
                return [*check(params, caller), *self.implied_permissions(operation, params, caller)]
        raise KeyError(f"sagemaker:{operation} has no permissions")

    def check(self, operation: str, params: Params) -> None:
        super().check(operation, params)
        shape = model(self.name).operation_model(operation).input_shape
        if shape is not None:
            enforce(params, shape)

    def resource_types(self) -> dict[str, ResourceType]:
        return {**resource_types(self.cloud), **model_monitor_types(self.cloud)}
