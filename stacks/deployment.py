"""One model in one environment: what its serving and its release stack call things, and how versions get there."""

from __future__ import annotations

from dataclasses import dataclass

from contract import Model
from contract.model import Rollout

STAGING_INSTANCES = 1
STAGING_ROLLOUT = Rollout(type="all_at_once", bake_minutes=0)
SERVING = ("staging", "production")
"""The environments that have endpoints, in the order of a release."""
INSTANCE_KINDS = ("instance", "async")
"""The kinds of endpoint that run on instances, which SageMaker shifts traffic between."""
CAPTURE = "capture/"
"""Where endpoints keep sampled requests and answers, `capture/<model's slug>/<environment>/`."""
ANSWERS = "async/"
"""Where asynchronous endpoints answer, likewise."""
ON, OFF, PAUSED = "on", "off", "paused"
"""Autoscaling; off when the smallest number of instances is the largest."""
SHADOW_PARAMETERS = ("ShadowImage", "ShadowModelDataUrl", "ShadowModelPackageArn")
AS_ASKED, AT_ONCE = "as_asked", "at_once"
"""How an update moves traffic: as model.yaml asks, or at once, since the set of variants changes with it."""
PENDING, APPROVED, REJECTED = "PendingManualApproval", "Approved", "Rejected"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A model's place in an environment: `approves` makes it the gate that tries versions nobody approved yet."""

    model: Model
    environment: str
    approves: bool = False
    fixed_instances: int | None = None
    """Instances whatever the model asks for; None takes what travels with the version."""
    rollout: Rollout | None = None
    """How traffic moves, where it differs from what the model asks for."""
    guarded: bool = True
    """Whether alarms, autoscaling and data capture go with the endpoint."""

    @property
    def kind(self) -> str:
        """`instance`, `serverless`, `async` or `none`."""
        return self.model.serving.endpoint

    @property
    def has_endpoint(self) -> bool:
        """Else a version that goes live is only a SageMaker model, for batch, which costs nothing."""
        return self.kind != "none"

    @property
    def alarmed(self) -> bool:
        return self.guarded and self.has_endpoint

    @property
    def on_instances(self) -> bool:
        return self.kind in INSTANCE_KINDS

    @property
    def in_a_network(self) -> bool:
        """Whether the model runs in its environment's VPC; SageMaker takes none for serverless endpoints."""
        return self.kind != "serverless"

    @property
    def traffic(self) -> Rollout:
        """How traffic moves to a new version."""
        return self.rollout or self.model.serving.rollout

    @property
    def scales(self) -> bool:
        """Whether the number of instances follows the load."""
        return self.guarded and self.on_instances and not self.fixed_instances

    @property
    def samples(self) -> bool:
        """Whether there is a time to bake in which sample requests prove something."""
        return self.on_instances and self.traffic.minutes > 0

    @property
    def captures(self) -> bool:
        """Whether requests and answers are kept; a serverless endpoint can't."""
        return self.guarded and self.on_instances and self.model.serving.capture_percent > 0

    @property
    def shadows(self) -> bool:
        """Whether the version that staging accepted gets a copy of this endpoint's requests."""
        return self.captures and self.model.serving.shadow

    @property
    def awaits_shadow(self) -> bool:
        """Whether a version is approved here only once it has been production's shadow."""
        return self.approves and self.model.serving.shadow

    @property
    def parameters(self) -> tuple[str, ...]:
        """What the serving stack is told about a version."""
        version = ("Image", "ModelDataUrl", "ModelPackageArn")
        size = ("InstanceType", "MinimumInstances") if self.on_instances else ()
        scaling = ("MaximumInstances", "Autoscaling") if self.scales else ()
        return (*version, *size, *scaling, *((*SHADOW_PARAMETERS, "Rollout") if self.shadows else ()))

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
    def place(self) -> str:
        """Its folder below the prefixes of the data bucket that endpoints write to."""
        return f"{self.model.slug}/{self.environment}"

    @property
    def served_keys(self) -> tuple[str, ...]:
        """The artifacts that SageMaker reads for the endpoint: the model, and an asynchronous one's sample request."""
        bundles = (f"bundles/{self.model.slug}/*",) if self.kind == "async" else ()
        return (*self.listed_keys, *bundles)

    @property
    def listed_keys(self) -> tuple[str, ...]:
        """The artifacts that SageMaker lists to find the model."""
        return (f"training/{self.model.slug}/*",)

    @property
    def captured_keys(self) -> tuple[str, ...]:
        """The objects that hold captured requests and answers."""
        return (f"{CAPTURE}{self.place}/*",)

    @property
    def evidence_keys(self) -> tuple[str, ...]:
        """The artifacts that the reconciler reads: the sample request, and the answer recorded at evaluation."""
        return (f"bundles/{self.model.slug}/*", f"evaluation/{self.model.slug}/*")

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
    def decisions(self) -> list[str]:
        """The approval statuses that this environment's reconciler may set."""
        return [APPROVED, REJECTED] if self.approves else [REJECTED]


def deployments(model: Model) -> tuple[Deployment, Deployment]:
    """Staging tries a version on one instance and approves it; production takes approved ones only."""
    staging = Deployment(model=model, environment="staging", approves=True, fixed_instances=STAGING_INSTANCES,
                         rollout=STAGING_ROLLOUT, guarded=False)  # fmt: skip
    return staging, production(model)


def production(model: Model) -> Deployment:
    """Where people ask the model."""
    return Deployment(model=model, environment="production")
