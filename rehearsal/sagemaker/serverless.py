"""Serverless variants: no instances, but a server that the first request starts and that idles out again.

One process answers for all of a variant's concurrency, so that a cold start happens once, not per concurrent request.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path
from typing import Any

from rehearsal.sagemaker.fleet import Throttled, Unhealthy, Variant
from rehearsal.sagemaker.instance import Instance, end
from rehearsal.sagemaker.variant_plan import VariantPlan
from rehearsal.service import Caller, Cloud, ServiceError

log = logging.getLogger("rehearsal")
Document = dict[str, Any]
IDLE_SECONDS, LEAST_IDLE_SECONDS = 600.0, 2.0
"""How long a container stays warm without a request; AWS does not say, people measure 5 to 15 minutes."""
WATCH_SECONDS = 0.25
MEMORY_MB = (1024, 2048, 3072, 4096, 5120, 6144)


def variant_kind(plan: VariantPlan) -> type[Variant]:
    """What serves a plan."""
    return ServerlessVariant if plan.serverless else Variant


class ServerlessVariant(Variant):
    """At most MaxConcurrency requests at once, by a server that runs only while there are any."""

    payload_bytes = 4 * 1024 * 1024

    def __init__(self, plan: VariantPlan, model_dir: Path, cloud: Cloud, endpoint: str, caller: Caller) -> None:
        super().__init__(plan, model_dir, cloud, endpoint, caller)
        assert plan.serverless is not None
        self._most: int = plan.serverless["MaxConcurrency"]
        self._provisioned: int = plan.serverless.get("ProvisionedConcurrency", 0)
        self._idle = max(LEAST_IDLE_SECONDS, IDLE_SECONDS / cloud.time_scale)
        self._waiting, self._used, self._asked = 0, time.monotonic(), False
        self._starting = threading.Lock()
        self._watcher = threading.Thread(target=self._watch, name=f"idle {endpoint}", daemon=True)

    def launch(self) -> None:
        """Started once, so that a model that can't be served fails the deployment."""
        self.instances = [self._spawn()]
        self._watcher.start()

    def serve(self) -> None:
        """A container is asked for /ping when it starts only: between requests there may be none."""
        self._used = time.monotonic()
        self.in_service = True

    async def wake(self) -> float:
        # In the router's one thread: nothing comes between the count and the request that it lets in.
        if self._waiting + sum(instance.in_flight for instance in self.instances) >= self._most:
            raise Throttled(f"Rate exceeded: {self._most} requests are being served (MaxConcurrency)")
        self._used, self._asked = time.monotonic(), True
        if self._warm():
            return 0.0
        self._waiting += 1
        try:
            return await asyncio.to_thread(self._start)
        finally:
            self._waiting -= 1

    def stop(self) -> None:
        self._stopping.set()
        if self._watcher.ident is not None:
            self._watcher.join()
        with self._starting:
            super().stop()

    def _died(self, instance: Instance) -> None:
        """Nothing takes its place before the next request does."""
        self._forget(instance)

    def _warm(self) -> bool:
        return any(instance.alive() and not instance.stopping for instance in self.instances)

    def _start(self) -> float:
        """The cold start, for which every request that meets it waits."""
        began = time.monotonic()
        with self._starting:
            if self._warm() or self._stopping.is_set():
                return 0.0
            log.info("endpoint %s: cold start", self._endpoint)
            fresh = self._spawn()
            try:
                self._await(fresh)
            except Unhealthy:
                end(fresh)
                raise
            self._used = time.monotonic()
            self.instances = [fresh]
            return time.monotonic() - began

    def _await(self, fresh: Instance) -> None:
        deadline = time.monotonic() + self.plan.startup_seconds
        while not fresh.healthy():
            if not fresh.alive() or time.monotonic() > deadline or self._stopping.wait(0.02):
                raise Unhealthy(self._ping_failed(fresh))

    def _watch(self) -> None:
        """End the server once it has been idle; provisioned concurrency keeps it."""
        while not self._stopping.wait(WATCH_SECONDS):
            asked, self._asked = self._asked, self._busy()
            if asked or self._asked:
                # It was being asked since the last look, so that its last answer may be as new as this.
                self._used = time.monotonic()
            elif self.in_service and not self._provisioned:
                self._cool_down()

    def _busy(self) -> bool:
        return bool(self._waiting or any(instance.in_flight for instance in self.instances))

    def _cool_down(self) -> None:
        with self._starting:
            if time.monotonic() - self._used <= self._idle:
                return
            for instance in [instance for instance in self.instances if not instance.in_flight and not self._waiting]:
                # A request that comes at this very moment finds it stopping and starts another.
                end(instance)
                self._forget(instance)

    def _forget(self, instance: Instance) -> None:
        self.instances = [other for other in self.instances if other is not instance]


def check_serverless(config: Document) -> None:
    """ValidationException for what SageMaker does not take in a configuration with a serverless variant."""
    variants = [variant for variant in config["ProductionVariants"] if variant.get("ServerlessConfig")]
    if not variants:
        return
    wrong = [f"{key} is not supported" for key in _UNSUPPORTED if config.get(key)]
    if len(config["ProductionVariants"]) > 1:
        wrong.append("there may be one production variant only")
    for variant in variants:
        wrong += _wrong_size(variant["ServerlessConfig"])
        wrong += [f"{key} is not supported" for key in _ON_INSTANCES if key in variant]
    if wrong:
        raise ServiceError("ValidationException", f"With a ServerlessConfig {'; '.join(wrong)}.")


def check_serverless_model(model: Document) -> None:
    """ValidationException for a model that SageMaker can't serve without instances."""
    wrong = [key for key in ("VpcConfig", "EnableNetworkIsolation") if model.get(key)]
    if wrong:
        message = f"Model {model['ModelName']} has {' and '.join(wrong)}, which serverless endpoints do not support."
        raise ServiceError("ValidationException", message)


def check_conversion(live: list[VariantPlan], plans: list[VariantPlan]) -> None:
    """ValidationException: SageMaker makes no serverless endpoint of one with instances (but the other way round)."""
    if live and not any(plan.serverless for plan in live) and any(plan.serverless for plan in plans):
        raise ServiceError(
            "ValidationException",
            "An endpoint with instances can't be updated to a serverless one; delete it and create it anew.",
        )


_UNSUPPORTED = ("DataCaptureConfig", "AsyncInferenceConfig", "ShadowProductionVariants")
_ON_INSTANCES = ("InstanceType", "InitialInstanceCount", "VolumeSizeInGB", "ModelDataDownloadTimeoutInSeconds")


def _wrong_size(size: Document) -> list[str]:
    wrong = []
    if size["MemorySizeInMB"] not in MEMORY_MB:
        wrong.append(f"MemorySizeInMB is {size['MemorySizeInMB']}; allowed: {', '.join(map(str, MEMORY_MB))}")
    if size.get("ProvisionedConcurrency", 0) > size["MaxConcurrency"]:
        wrong.append("ProvisionedConcurrency may not be larger than MaxConcurrency")
    return wrong
