"""One model in one environment: what its serving and its release stack call things, and how versions get there."""

from __future__ import annotations

from dataclasses import dataclass

from contract import Model

STAGING_INSTANCES = 1
PENDING, APPROVED = "PendingManualApproval", "Approved"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A model's place in an environment: `approves` makes it the gate that tries versions nobody approved yet."""

    model: Model
    environment: str
    approves: bool = False
    fixed_instances: int | None = None
    """Instances whatever the model asks for; None takes what travels with the version."""

    @property
    def title(self) -> str:
        """The deployment in logical ids: `FlightDelayStaging`."""
        return f"{self.model.title}{self.environment.capitalize()}"

    def generated_name(self, kind: str) -> str:
        """What CloudFormation's names of `model` and `endpoint-config` begin with: their logical id."""
        return self.title + "".join(part.capitalize() for part in kind.split("-"))

    @property
    def endpoint(self) -> str:
        """Fixed, since clients know the endpoint by it."""
        return f"{self.model.slug}-{self.environment}"

    @property
    def serving_stack(self) -> str:
        return f"{self.model.title}-Serving-{self.environment.capitalize()}"

    @property
    def release_stack(self) -> str:
        return f"{self.model.title}-Release-{self.environment.capitalize()}"

    @property
    def wanted_statuses(self) -> tuple[str, ...]:
        """What may go live here. Pending is listed first: a version approved in between is then still seen."""
        return (PENDING, APPROVED) if self.approves else (APPROVED,)

    @property
    def tags(self) -> dict[str, str]:
        return {"pushline:model": self.model.name, "pushline:environment": self.environment}


def deployments(model: Model) -> tuple[Deployment, Deployment]:
    """Staging tries a version on one instance and approves it; production takes approved ones only."""
    staging = Deployment(model=model, environment="staging", approves=True, fixed_instances=STAGING_INSTANCES)
    return staging, production(model)


def production(model: Model) -> Deployment:
    """Where people ask the model."""
    return Deployment(model=model, environment="production")
