"""What crosses accounts where an environment has one of its own: who, under which fixed name, to read and decide what.

The other side's policies have to name a role before it exists, so these roles have names, and the policies are for the
role's account under the condition that the caller is that role: S3 and KMS refuse to name a principal that is not
there yet. One side alone allows nothing: the role's own policy says the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aws_cdk import Aws
from aws_cdk import aws_iam as iam

from config import Invalid, Problem, Settings
from contract import Model
from stacks.deployment import SERVING, Deployment, deployments, production
from stacks.place import is_apart


@dataclass(frozen=True)
class Visitor:
    """A role of another account."""

    account: str
    name: str

    @property
    def arn(self) -> str:
        return f"arn:{Aws.PARTITION}:iam::{self.account}:role/{self.name}"

    def may(self, *actions: str, on: str | Sequence[str], when: dict[str, dict[str, object]] | None = None,
            ) -> iam.PolicyStatement:  # fmt: skip
        """A resource policy's statement for this role and no other of its account."""
        conditions = {name: dict(keys) for name, keys in (when or {}).items()}
        conditions.setdefault("ArnEquals", {})["aws:PrincipalArn"] = self.arn
        resources = [on] if isinstance(on, str) else list(on)
        return iam.PolicyStatement(principals=[iam.AccountPrincipal(self.account)], actions=list(actions),
                                   resources=resources, conditions=conditions)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """A visitor that reads objects below `keys`, and lists those of them that are in `listed`."""

    visitor: Visitor
    keys: tuple[str, ...]
    listed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Crossing:
    """One deployment in an account of its own: the names by which both accounts know each other's parts."""

    project: str
    training: str
    account: str
    deployment: Deployment

    def _name(self, actor: str) -> str:
        return f"{self.project}-{self.deployment.endpoint}-{actor}"

    @property
    def serving(self) -> Visitor:
        """The model's execution role, which reads the artefact."""
        return Visitor(self.account, self._name("serving"))

    @property
    def reconciler(self) -> Visitor:
        """Reads the registry, the sample request and the recorded answer; decides about versions."""
        return Visitor(self.account, self._name("reconcile"))

    @property
    def forwarder(self) -> Visitor:
        """What training's rule puts registry events on this environment's bus as."""
        return Visitor(self.training, self._name("forward"))

    @property
    def bus(self) -> str:
        """The event bus of this deployment, by name."""
        return self._name("registry")

    @property
    def bus_arn(self) -> str:
        return f"arn:{Aws.PARTITION}:events:{Aws.REGION}:{self.account}:event-bus/{self.bus}"

    @property
    def monitor(self) -> Visitor:
        """Training's state machine that looks for captured requests."""
        return Visitor(self.training, self._name("monitor"))

    @property
    def measurer(self) -> Visitor:
        """Training's job that reads them."""
        return Visitor(self.training, self._name("measure"))

    def traffic_readers(self) -> Iterator[Reader]:
        """Who reads what production's endpoint captured."""
        yield Reader(self.monitor, (), self.deployment.captured_keys)
        yield Reader(self.measurer, self.deployment.captured_keys, self.deployment.captured_keys)

    def readers(self) -> Iterator[Reader]:
        """Who reads training's artifacts."""
        yield Reader(self.serving, self.deployment.served_keys, self.deployment.listed_keys)
        yield Reader(self.reconciler, self.deployment.evidence_keys)


def crossing(settings: Settings, deployment: Deployment) -> Crossing | None:
    """What crosses accounts for a deployment; None where it shares training's account."""
    if not is_apart(settings, deployment.environment):
        return None
    accounts = {name: environment.account or "" for name, environment in settings.environments.items()}
    return Crossing(settings.project, accounts["training"], accounts[deployment.environment], deployment)


def refuse_what_can_not_cross(settings: Settings, models: Sequence[Model]) -> None:
    """Invalid for every model whose shadow or native monitors would be in another account than what they need."""
    apart = {name for name in SERVING if is_apart(settings, name)}
    problems = [Problem(f"model_code/{model.name}/model.yaml", 0, key, text)
                for model in models for key, text in _can_not_cross(model, apart)]  # fmt: skip
    if problems:
        raise Invalid(problems)


def _can_not_cross(model: Model, apart: set[str]) -> Iterator[tuple[str, str]]:
    text = ("found {}, with an environment in an account of its own; allowed: {}, or one account for all "
            "(config/platform.yaml), since {}")  # fmt: skip
    if model.serving.shadow and apart:
        yield "serving.shadow", text.format("true", "false", "a shadow's comparison does not cross accounts")
    if model.monitoring.native and "production" in apart:
        why = "Model Monitor watches endpoints of its own account only"
        yield "monitoring.native", text.format(", ".join(model.monitoring.native), "[]", why)


def traffic_readers(settings: Settings, models: Sequence[Model], environment: str) -> list[Reader]:
    """Every role of training's account that reads what the endpoints of an environment captured."""
    crossings = [crossing(settings, production(model)) for model in models if environment == "production"]
    return [reader for found in crossings if found for reader in found.traffic_readers()]


def artifact_readers(settings: Settings, models: Sequence[Model]) -> list[Reader]:
    """Every role of other accounts that reads training's artifacts."""
    crossings = [crossing(settings, deployment) for model in models for deployment in deployments(model)]
    return [reader for found in crossings if found for reader in found.readers()]
