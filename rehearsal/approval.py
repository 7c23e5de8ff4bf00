"""Sets a version's approval status in the registry: approve rolls forward, reject rolls back."""

from __future__ import annotations

from rehearsal import status
from rehearsal.landscape import ClientOf, Landscape, NotDeployed

APPROVED, REJECTED = "Approved", "Rejected"


def set_approval(
    client_of: ClientOf, landscape: Landscape, model: str, version: int, approval: str, reason: str
) -> None:
    """Write the status and the reason; NotDeployed if there is no such model or version."""
    packages = status.model_packages(client_of, landscape.model(model))
    arn = next((row["arn"] for row in packages if row["version"] == version), None)
    if arn is None:
        known = ", ".join(str(row["version"]) for row in packages) or "none yet"
        raise NotDeployed(f"{model} has no version {version}; there is {known}")
    client_of("sagemaker").update_model_package(
        ModelPackageArn=arn, ModelApprovalStatus=approval, ApprovalDescription=reason
    )
