"""Versions come faster than they are released, some fail, people decide meanwhile, endpoints scale, events are lost and
come twice: whatever the order, no version is blamed for another one, and what is wanted is live in the end."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.stacks.release_simulation import FLAWS, Place, SlowWorld
from tests.stacks.release_world import PRODUCTION, STAGING

SEEDS = (5, 17, 18, 21, 46, 52, 61)
"""The courses of the first eighty in which an earlier reconciler rejected a good version, gave a wrong reason or told
people of a release that had stopped and had not."""
REASONS = {"broken": "did not pass the ping health check", "silent": "rolled back silently", "wrong": "answer differs"}
REGISTERED_SECONDS, DECIDED_SECONDS = 2500, 3500
"""Within which time these things happen; a release takes about 300 seconds."""


class Course:
    """What happens to the two environments, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.place, self._plan = Place(seed, (STAGING, PRODUCTION)), random.Random(seed)
        self.flaws: dict[int, dict[str, str]] = {}
        self.decided: set[int] = set()
        """The versions that people decided about."""
        self.place.register(1)
        if self._chance(0.7):
            self.place.settle()
        for version in range(2, self._plan.randint(2, 5) + 1):
            self._register(version)
        for _ in range(self._plan.choice([0, 0, 1, 2])):
            self._decide()
        for _ in range(self._plan.choice([0, 0, 0, 1, 3])):
            self._scale()
        self.place.settle()

    def _chance(self, of: float) -> bool:
        return self._plan.random() < of

    def _register(self, version: int) -> None:
        environments = [world.deployment.environment for world in self.place.worlds]
        flaws = {name: self._plan.choice(FLAWS) for name in environments if self._chance(0.3)}
        facts = {"approval": "manual"} if self._chance(0.2) else {}
        if self._chance(0.2):
            facts["serving_instance_type"] = "ml.m6i.xlarge"
        self.flaws[version] = flaws

        def register() -> None:
            if version > max(self.place.packages):
                self.place.register(version, flaws, **facts)

        self.place.clock.start(self._plan.uniform(0, REGISTERED_SECONDS), register)

    def _decide(self) -> None:
        version, status = self._plan.randint(1, 5), self._plan.choice(["Approved", "Rejected"])

        def decide() -> None:
            if version in self.place.packages:
                self.decided.add(version)
                self.place.decide(version, status)

        self.place.clock.start(self._plan.uniform(0, DECIDED_SECONDS), decide)

    def _scale(self) -> None:
        world, seconds = self._plan.choice(self.place.worlds), self._plan.uniform(30, 300)

        def scale() -> None:
            if world.endpoint_status == "InService":
                world.scales_until = self.place.clock.seconds + seconds

        self.place.clock.start(self._plan.uniform(0, DECIDED_SECONDS), scale)

    def flaw(self, version: int, world: SlowWorld) -> str:
        return self.flaws.get(version, {}).get(world.deployment.environment, "none")


@pytest.mark.parametrize("seed", SEEDS)
def test_each_version_gets_what_it_deserves_and_people_hear_of_it_once(seed: int) -> None:
    course = Course(seed)

    assert {execution.error for _, execution in course.place.executions} <= {"", "VersionFailed"}
    for world in course.place.worlds:
        told = Counter(message["Subject"] for message in world.told)
        for version, reason in world.rejections:
            assert REASONS.get(course.flaw(version, world), "nothing was wrong with it") in reason
            about = f"flight_delay in {world.deployment.environment}: version {version} was rejected"
            assert version in course.decided or told[about] == 1
        wanted = {version for version, package in course.place.packages.items()
                  if package["ModelApprovalStatus"] in world.deployment.wanted_statuses}  # fmt: skip
        assert world.live_version == max(wanted, default=world.live_version)
        assert world.stack_status.endswith("_COMPLETE")
