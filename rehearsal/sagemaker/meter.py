"""What endpoints' invocations measured, published to CloudWatch's AWS/SageMaker namespace once a minute of its time."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rehearsal.repeater import Repeater
from rehearsal.service import Cloud

log = logging.getLogger("rehearsal")
NAMESPACE, PER_INSTANCE = "AWS/SageMaker", "InvocationsPerInstance"
OWN_NAMESPACE, DROPPED = "Rehearsal", "ShadowRequestsDropped"
"""SageMaker has no metric for copies that it did not send."""
PERIOD_SECONDS, LEAST_PERIOD_SECONDS = 60, 0.2
VALUES = 150
"""PutMetricData takes at most this many different values of one metric at once."""
DIGITS = 3
_MICROSECONDS = ("ModelLatency", "OverheadLatency", "ModelSetupTime", "RequestDownloadLatency",
                 "ResponseUploadLatency", "TimeInBacklog")  # fmt: skip
_UNITS = {
    **dict.fromkeys(_MICROSECONDS, "Microseconds"),
    "TotalProcessingTime": "Milliseconds",
    "ApproximateAgeOfOldestRequest": "Seconds",
}
_ALSO_ASYNCHRONOUS = ("Invocation4XXErrors", "Invocation5XXErrors", "ModelLatency")
"""SageMaker publishes no other metric of invocations for asynchronous endpoints."""


@dataclass(frozen=True)
class Place:
    """The fleet that answered: an endpoint's variant on one configuration."""

    endpoint: str
    variant: str
    config: str
    account: str
    region: str
    asynchronous: bool = False

    def dimensions(self) -> list[list[dict[str, str]]]:
        """The variant's, whatever the fleet; and the fleet's own, by which a rollout tells new from old."""
        variant = {"EndpointName": self.endpoint, "VariantName": self.variant}
        return [
            [{"Name": key, "Value": value} for key, value in each.items()]
            for each in (variant, {**variant, "EndpointConfigName": self.config})
        ]


@dataclass(frozen=True)
class QueuePlace:
    """An asynchronous endpoint's queue, or with `variant` what is done with its requests."""

    endpoint: str
    account: str
    region: str
    variant: str = ""

    def dimensions(self) -> list[list[dict[str, str]]]:
        """One set: the endpoint's, and the variant's if there is one."""
        named = {"EndpointName": self.endpoint, **({"VariantName": self.variant} if self.variant else {})}
        return [[{"Name": key, "Value": value} for key, value in named.items()]]


class Meter:
    """Counts invocations as they end; safe to use from the router's thread."""

    def __init__(self, cloud: Cloud, scaled: Callable[[], Iterable[Place]]) -> None:
        """`scaled` gives the variants for which a minute without invocations is a value of zero."""
        self._cloud, self._scaled = cloud, scaled
        self._period = max(PERIOD_SECONDS / cloud.time_scale, LEAST_PERIOD_SECONDS)
        self._lock = threading.Lock()
        self._counts: dict[tuple[int, Place | QueuePlace, str], Counter[float]] = {}
        self._thread = Repeater("endpoint-metrics", self._publish, lambda: self._period - time.time() % self._period)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def invoked(self, place: Place, status: int, model: float, total: float, instances: int) -> None:
        """One request ended: the HTTP status, the seconds the model and the whole took, the instances in service."""
        values = {
            "Invocations": 1.0,
            PER_INSTANCE: 1 / max(1, instances),
            "Invocation4XXErrors": float(400 <= status < 500),
            "Invocation5XXErrors": float(status >= 500),
            "InvocationModelErrors": float(not 200 <= status < 300),
            "ModelLatency": model * 1e6,
            "OverheadLatency": max(0.0, total - model) * 1e6,
        }
        for name, value in values.items():
            if not place.asynchronous or name in _ALSO_ASYNCHRONOUS:
                self.record(place, name, value)

    def record(self, place: Place | QueuePlace, name: str, value: float) -> None:
        """One value of a metric."""
        slot = math.floor(time.time() / self._period)
        with self._lock:
            self._counts.setdefault((slot, place, name), Counter())[_rounded(value)] += 1

    def dropped(self, place: Place) -> None:
        """A copy for a shadow variant was not sent, since too many were under way."""
        self.record(place, DROPPED, 1.0)

    def failed(self, place: Place) -> None:
        """An instance went away under a request, which another one then answered."""
        if not place.asynchronous:
            self.record(place, "InvocationModelErrors", 1.0)

    def set_up(self, place: Place, seconds: float) -> None:
        """A serverless variant was started for a request."""
        self.record(place, "ModelSetupTime", seconds * 1e6)

    def _publish(self) -> None:
        now = math.floor(time.time() / self._period)
        with self._lock:
            over = {key: self._counts.pop(key) for key in list(self._counts) if key[0] < now}
        by_place: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for (slot, place, name), counts in over.items():
            data = _data(name, counts, slot * self._period, place)
            namespace = OWN_NAMESPACE if name == DROPPED else NAMESPACE
            by_place.setdefault((namespace, place.account, place.region), []).extend(data)
        invoked = {place for _, place, _ in over}
        for place in self._scaled():
            if place not in invoked:  # so that what nobody asks any more can be scaled in
                idle = _data(PER_INSTANCE, Counter([0.0]), (now - 1) * self._period, place)
                by_place.setdefault((NAMESPACE, place.account, place.region), []).extend(idle)
        for (namespace, account, region), data in by_place.items():
            self._put(namespace, data, account, region)

    def _put(self, namespace: str, data: list[dict[str, Any]], account: str, region: str) -> None:
        try:
            metrics = self._cloud.client("cloudwatch", account=account, region=region)
            for first in range(0, len(data), 500):
                metrics.put_metric_data(Namespace=namespace, MetricData=data[first : first + 500])
        except Exception as error:
            if not self._thread.stopping.is_set():
                log.error("metrics of endpoints could not be published: %s", error)


def _data(name: str, counts: Counter[float], at: float, place: Place | QueuePlace) -> list[dict[str, Any]]:
    values = sorted(counts)
    return [
        {
            "MetricName": name,
            "Dimensions": dimensions,
            "Timestamp": at,
            "Unit": _UNITS.get(name, "Count" if isinstance(place, QueuePlace) else "None"),
            "Values": values[first : first + VALUES],
            "Counts": [float(counts[value]) for value in values[first : first + VALUES]],
        }
        for dimensions in place.dimensions()
        for first in range(0, len(values), VALUES)
    ]


def _rounded(value: float) -> float:
    """To DIGITS significant digits, so that a minute of many requests has few different values."""
    return round(value, DIGITS - 1 - math.floor(math.log10(value))) if value > 0 else 0.0
