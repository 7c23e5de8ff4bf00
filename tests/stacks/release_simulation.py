"""Many executions of the reconcilers at once, on a clock of their own: calls take their time, updates take longer, and
events start further executions, sometimes twice and sometimes never. One seed is one course of events."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from stacks.deployment import PENDING, Deployment
from tests.stacks.release_world import BUSY, UNHEALTHY, World, version_of
from tests.stacks.state_machine import Execution, TaskFailed

START = datetime(2013, 3, 1, 6)
CREATE, SWITCH = (15.0, 60.0), (150.0, 400.0)
"""How long CloudFormation makes the model and the config, and how long SageMaker takes to move to them, in seconds."""
LATENCY, SLOW_LATENCY, SLOW = (0.05, 0.8), (5.0, 40.0), 0.03
"""How long a call takes, and how long one in many does: it was throttled, or a machine stood still."""
DELIVERY, LOST, TWICE = (0.3, 4.0), 0.1, 0.15
"""How long an event takes, how many of them never arrive, and how many do so again."""
FLAWS = ("broken", "silent", "wrong")


class Clock:
    """Lets one thread run at a time: the one whose sleep ends first."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._turn, self._runs = threading.Condition(), False
        self._wakes: dict[threading.Thread, float] = {}
        self._failures: list[BaseException] = []

    def now(self) -> str:
        return (START + timedelta(seconds=self.seconds)).isoformat(timespec="milliseconds") + "Z"

    def start(self, after: float, work: Callable[[], Any]) -> None:
        """Run `work` that many seconds from now."""

        def run() -> None:
            self._wait()
            try:
                work()
            except BaseException as failed:
                self._failures.append(failed)
            finally:
                with self._turn:
                    del self._wakes[thread]
                    self._turn.notify_all()

        thread = threading.Thread(target=run, daemon=True)
        with self._turn:
            self._wakes[thread] = self.seconds + after
        thread.start()

    def sleep(self, seconds: float) -> None:
        """Let the others run for so long."""
        with self._turn:
            self._wakes[threading.current_thread()] = self.seconds + seconds
            self._turn.notify_all()
        self._wait()

    def run(self) -> None:
        """Let time pass until nothing is left to do, and raise what went wrong."""
        with self._turn:
            self._runs = True
            self._turn.notify_all()
            self._turn.wait_for(lambda: not self._wakes)
            self._runs = False
        for failed in self._failures:
            raise failed

    def _wait(self) -> None:
        thread = threading.current_thread()
        with self._turn:
            self._turn.wait_for(lambda: self._runs and min(self._wakes, key=self._wakes.__getitem__) is thread)
            self.seconds = max(self.seconds, self._wakes[thread])


@dataclass(kw_only=True)
class SlowWorld(World):
    """A world whose updates take minutes, and whose endpoint scales now and then."""

    clock: Clock
    chance: random.Random
    stack_updated: Callable[[], None]
    package_changed: Callable[[], None]
    wrong: set[int] = field(default_factory=set)
    """Versions whose answer is not the recorded one."""
    scales_until: float = 0.0
    live_config: str = ""
    models: dict[str, dict[str, str]] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    rejections: list[tuple[int, str]] = field(default_factory=list)

    def now(self) -> str:
        return self.clock.now()

    @property
    def config(self) -> str:
        return self.live_config

    def _call(self, resource: str, arguments: dict[str, Any]) -> Any:
        """What it is answered is as old as the answer took."""
        self._take_time()
        try:
            return copy.deepcopy(super()._call(resource, arguments))
        finally:
            self._take_time()

    def _take_time(self) -> None:
        self.clock.sleep(self.chance.uniform(*(SLOW_LATENCY if self.chance.random() < SLOW else LATENCY)))

    def _describe_stacks(self, query: dict[str, Any]) -> dict[str, Any]:
        self._baking = 0
        return super()._describe_stacks(query)

    def _update_stack(self, update: dict[str, Any]) -> dict[str, Any]:
        if self.stack_status.endswith("_IN_PROGRESS"):
            cause = f"Stack:arn is in {self.stack_status} state and can not be updated."
            raise TaskFailed("CloudFormation.CloudFormationException", cause)
        target = {pair["ParameterKey"]: pair["ParameterValue"] for pair in update["Parameters"]}
        if target == self.parameters:
            raise TaskFailed("CloudFormation.CloudFormationException", "No updates are to be performed.")
        self.updates.append(target)
        self._updated = {"LastUpdatedTime": self.now()}
        before, self.parameters, self.stack_status = self.parameters, target, "UPDATE_IN_PROGRESS"
        self.clock.start(0, lambda: self._change(before, target, update["ClientRequestToken"]))
        return {}

    def _change(self, before: dict[str, str], target: dict[str, str], token: str) -> None:
        """What CloudFormation does about an update."""
        self.clock.sleep(self.chance.uniform(*CREATE))
        failed = self._change_endpoint(target) if self._concerns_endpoint(before, target) else ""
        if failed:
            self.stack_status = "UPDATE_ROLLBACK_IN_PROGRESS"
            self.clock.sleep(self.chance.uniform(*CREATE))
            self.parameters = before
        self.outcomes.append((token, failed))
        self.stack_status = "UPDATE_ROLLBACK_COMPLETE" if failed else "UPDATE_COMPLETE"
        if not failed:
            self.stack_updated()

    @staticmethod
    def _concerns_endpoint(before: dict[str, str], target: dict[str, str]) -> bool:
        return any(before[name] != target[name] for name in ("ModelDataUrl", "InstanceType", "MinimumInstances"))

    def _change_endpoint(self, target: dict[str, str]) -> str:
        """Why it failed, if it did; a version that is `silent` is taken back without a word."""
        if not target["ModelDataUrl"]:
            self.endpoint, self.live_config = None, ""
            return ""
        number = len(self.made)
        config, model = (f"{self.deployment.title}{kind}-{number}" for kind in ("EndpointConfig", "Model"))
        self.configs[config], self.models[model] = model, target
        self.made |= {config: self.now(), model: self.now()}
        version, failed, created = version_of(target["ModelPackageArn"]), "", not self.endpoint
        if self.scales_until > self.clock.seconds:
            failed = BUSY
        else:
            self.endpoint_status = "Creating" if created else "Updating"
            if created:
                self.endpoint, self.live_config = dict(target), config
            self.clock.sleep(self.chance.uniform(*SWITCH))
            self.endpoint_status = "InService"
            failed = UNHEALTHY if version in self.broken else ""
            if not failed and (created or version not in self.silent):
                self.endpoint, self.live_config = dict(target), config
        if failed:
            del self.configs[config], self.models[model]
            if created:
                self.endpoint, self.live_config = None, ""
        return failed

    def _describe_endpoint(self, query: dict[str, Any]) -> dict[str, Any]:
        scales = self.scales_until > self.clock.seconds and self.endpoint_status == "InService"
        return super()._describe_endpoint(query) | ({"EndpointStatus": "Updating"} if scales else {})

    def _describe_endpoint_config(self, query: dict[str, Any]) -> dict[str, Any]:
        if query["EndpointConfigName"] not in self.configs:
            raise TaskFailed("SageMaker.SageMakerException", "Could not find endpoint configuration.")
        return super()._describe_endpoint_config(query) | {"CreationTime": self.made[query["EndpointConfigName"]]}

    def _describe_model(self, query: dict[str, Any]) -> dict[str, Any]:
        if query["ModelName"] not in self.models:
            raise TaskFailed("SageMaker.SageMakerException", "Could not find model.")
        model = self.models[query["ModelName"]]
        variables = {"MODEL_PACKAGE_ARN": model["ModelPackageArn"]}
        return {"PrimaryContainer": {"Image": model["Image"], "ModelDataUrl": model["ModelDataUrl"],
                                     "Environment": variables}}  # fmt: skip

    def _made(self, name: str) -> str:
        return self.made.get(name, "2013-02-01T06:00:00.000Z")

    def _delete_endpoint_config(self, query: dict[str, Any]) -> dict[str, Any]:
        name = query["EndpointConfigName"]
        assert name != self.live_config, "the live configuration was deleted"
        self.configs.pop(name, None)
        return super()._delete_endpoint_config(query)

    def _delete_model(self, query: dict[str, Any]) -> dict[str, Any]:
        assert query["ModelName"] != self.configs.get(self.live_config), "the live model was deleted"
        self.models.pop(query["ModelName"], None)
        return super()._delete_model(query)

    def _list_models(self, query: dict[str, Any]) -> dict[str, Any]:
        return {"Models": [{"ModelName": name, "CreationTime": self._made(name)} for name in self.models]}

    def _update_model_package(self, change: dict[str, Any]) -> dict[str, Any]:
        if change.get("ModelApprovalStatus") == "Rejected":
            self.rejections.append((version_of(change["ModelPackageArn"]), change["ApprovalDescription"]))
        answer = super()._update_model_package(change)
        self.package_changed()
        return answer

    def _invoke_endpoint(self, request: dict[str, Any]) -> dict[str, Any]:
        if not self.endpoint or self.endpoint_status == "Creating":
            raise TaskFailed("SageMakerRuntime.ValidationErrorException", "Endpoint flight-delay not found.")
        self.asked += 1
        version = version_of(self.endpoint["ModelPackageArn"])
        return {"Body": answer_of(-version if version in self.wrong else version), "ContentType": "application/json"}

    def _get_object(self, query: dict[str, Any]) -> dict[str, Any]:
        name = query["Key"].rpartition("/")[2]
        if name.startswith("answer-"):
            return {"Body": answer_of(int(name.removeprefix("answer-")))}
        return super()._get_object(query)


def answer_of(version: int) -> str:
    """Each version has its own."""
    return f'{{"predictions": [{version}.5]}}'


class Place:
    """Both environments of a model, their registry, and people who decide."""

    def __init__(self, seed: int, environments: tuple[Deployment, ...]) -> None:
        self.chance, self.clock = random.Random(seed), Clock()
        self.executions: list[tuple[SlowWorld, Execution]] = []
        self._runs = 0
        self.worlds = [self._world(deployment) for deployment in environments]
        for world in self.worlds:
            world.packages = self.packages

    def _world(self, deployment: Deployment) -> SlowWorld:
        def stack_updated() -> None:
            self.event(world)

        world = SlowWorld(deployment, clock=self.clock, chance=self.chance, stack_updated=stack_updated,
                          package_changed=lambda: self.event(*self.worlds))  # fmt: skip
        return world

    @property
    def packages(self) -> dict[int, dict[str, Any]]:
        return self.worlds[0].packages

    def event(self, *concerned: SlowWorld) -> None:
        """It starts these reconcilers after a while; it may be lost, or come twice."""
        for world in concerned:
            drawn = self.chance.random()
            for _ in range(0 if drawn < LOST else 2 if drawn < LOST + TWICE else 1):
                self.start(world, self.chance.uniform(*DELIVERY))

    def start(self, world: SlowWorld, after: float = 0) -> None:
        """Start an execution of a reconciler."""
        self._runs += 1
        name = f"run-{self._runs}"

        self.clock.start(after, lambda: self.executions.append((world, world.reconcile(name, self.clock))))

    def register(self, version: int, flaws: dict[str, str] | None = None, **facts: str) -> None:
        """A version of the retraining, and which of FLAWS it has in which environment."""
        self.worlds[0].register(version, PENDING, sample_answer=f"s3://artifacts/evaluation/answer-{version}", **facts)
        for world in self.worlds:
            if flaw := (flaws or {}).get(world.deployment.environment):
                getattr(world, flaw).add(version)
        self.event(*self.worlds)

    def decide(self, version: int, status: str) -> None:
        """What a person decides."""
        self.worlds[0].decide(version, status)
        self.event(*self.worlds)

    def settle(self) -> None:
        """Until nothing runs; then the hourly look, which makes up for lost events."""
        self.clock.run()
        for _ in range(3):
            for world in self.worlds:
                self.start(world)
            self.clock.run()
