"""What SageMaker says when a version is registered, approved or rejected."""

from __future__ import annotations

from typing import Any

from contract import Model


def registry_changed(model: Model) -> dict[str, Any]:
    """The pattern of a model's registry events."""
    return {"source": ["aws.sagemaker"], "detail-type": ["SageMaker Model Package State Change"],
            "detail": {"ModelPackageGroupName": [model.slug]}}  # fmt: skip
