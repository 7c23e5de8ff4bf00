"""Which instance a request goes to: the live fleet behind an endpoint, and beside it the new one during a rollout."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from rehearsal.sagemaker.fleet import Fleet, Variant
from rehearsal.sagemaker.instance import Instance


class Refused(Exception):
    """An answer of the router itself, not of a model: HTTP status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Route:
    """What is live behind one endpoint, and how many requests it got; during a rollout also the new fleet."""

    arn: str
    fleet: Fleet
    requests: int = 0
    green: Fleet | None = None
    shares: dict[str, float] = field(default_factory=dict)
    """By variant, the share of the new fleet that is switched on, and so of the traffic that it gets."""
    _turn: dict[str, float] = field(default_factory=dict)
    _shift: dict[str, float] = field(default_factory=dict)
    _next: Any = field(default_factory=itertools.count)

    def variant(self, wanted: str | None) -> tuple[Fleet, Variant]:
        """The variant asked for, else the next by weight (smooth round-robin), of the fleet whose turn it is."""
        variants = self.fleet.variants
        chosen = named(variants, wanted, self.arn) if wanted else self._by_weight(variants)
        name = chosen.plan.name
        if self.green is None or not (share := self.shares.get(name, 0.0)):
            return self.fleet, chosen
        self._shift[name] = self._shift.get(name, 0.0) + share
        if self._shift[name] < 1 - 1e-9:
            return self.fleet, chosen
        self._shift[name] -= 1
        return self.green, named(self.green.variants, name, self.arn)

    def _by_weight(self, variants: list[Variant]) -> Variant:
        for variant in variants:
            self._turn[variant.plan.name] = self._turn.get(variant.plan.name, 0) + variant.plan.weight
        chosen = max(variants, key=lambda variant: self._turn[variant.plan.name])
        self._turn[chosen.plan.name] -= sum(variant.plan.weight for variant in variants)
        return chosen

    def instance(self, fleet: Fleet, variant: Variant, tried: set[str]) -> Instance | None:
        """The next living instance round-robin, one not tried before if there is one."""
        on = variant.instances
        if fleet is self.green:
            on = on[: max(1, round(len(on) * self.shares.get(variant.plan.name, 0.0)))]
        living = [instance for instance in on if instance.alive() and not instance.stopping]
        fresh = [instance for instance in living if instance.id not in tried] or living
        return fresh[next(self._next) % len(fresh)] if fresh else None


def named(variants: list[Variant], name: str, arn: str) -> Variant:
    """The variant of this name; Refused if there is none."""
    for variant in variants:
        if variant.plan.name == name:
            return variant
    raise Refused(400, f"Variant {name} not found for endpoint {name_of(arn)}")


def name_of(arn: str) -> str:
    """The endpoint's name."""
    return arn.rpartition("/")[2]
