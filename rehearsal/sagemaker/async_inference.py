"""Asynchronous endpoints: a queue on disk, worked off by the endpoint's fleet as many requests at once as it may.

A request leaves the queue when its outcome is in S3 and told; one that was being worked on when the rehearsal stopped
is asked again.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rehearsal.repeater import Repeater
from rehearsal.sagemaker.async_request import FAULTS, KIND, Answer, Exchange
from rehearsal.sagemaker.endpoint_record import owner, plans
from rehearsal.sagemaker.meter import Meter, QueuePlace
from rehearsal.sagemaker.models import ENDPOINT
from rehearsal.sagemaker.route import Refused
from rehearsal.sagemaker.router import Router
from rehearsal.service import Cloud

log = logging.getLogger("rehearsal")
Document = dict[str, Any]
POLL_SECONDS = 0.1
WORKERS = 32
CONCURRENT_PER_INSTANCE = 4
"""Where the configuration names none, SageMaker chooses."""
_HEADERS = {
    "ContentType": "content-type",
    "Accept": "accept",
    "CustomAttributes": "x-amzn-sagemaker-custom-attributes",
    "InferenceId": "x-amzn-sagemaker-inference-id",
}


class Failed(Exception):
    """A request that ends without an answer: what people are told, and the metric that counts it."""

    def __init__(self, reason: str, metric: str = "", answer: Answer | None = None) -> None:
        super().__init__(reason)
        self.metric, self.answer = metric, answer


@dataclass(frozen=True)
class _Work:
    """A request with what it takes to serve it."""

    key: str
    request: Document
    place: QueuePlace
    exchange: Exchange


class AsyncInference:
    """Takes requests off the queue of every asynchronous endpoint that is in service."""

    def __init__(self, cloud: Cloud, router: Router, meter: Meter) -> None:
        self._cloud, self._router, self._meter = cloud, router, meter
        self._busy: set[str] = set()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="async-inference")
        self._thread = Repeater("async-inference", self._look, lambda: POLL_SECONDS)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What is being worked on stays in the queue for the next start."""
        self._thread.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> None:
        # Before the queue is read: a request that ends in between is in what was read, and asked no second time.
        busy = frozenset(self._busy)
        waiting: dict[str, list[tuple[str, Document]]] = {}
        for key, request in self._cloud.store.list(KIND):
            waiting.setdefault(request["endpoint"], []).append((key, request))
        for made, endpoint in self._cloud.store.list(ENDPOINT):
            if endpoint["live"] and endpoint["live"].get("asynchronous"):
                self._serve(endpoint, waiting.pop(made, []), busy)
        for key, _ in [request for queue in waiting.values() for request in queue if request[0] not in busy]:
            self._cloud.store.delete(KIND, key)  # the endpoint is gone, and with it its queue

    def _serve(self, endpoint: Document, queue: list[tuple[str, Document]], busy: frozenset[str]) -> None:
        config, instances = endpoint["live"]["asynchronous"], self._router.instances(endpoint["EndpointArn"])
        self._measure(endpoint, queue, instances)
        each = (config.get("ClientConfig") or {}).get("MaxConcurrentInvocationsPerInstance", CONCURRENT_PER_INSTANCE)
        free = each * instances - sum(key in busy for key, _ in queue)
        (plan, *_), caller = plans(endpoint["live"]), owner(endpoint)
        for key, request in [(key, request) for key, request in queue if key not in busy][: max(0, free)]:
            self._busy.add(key)
            place = QueuePlace(endpoint["EndpointName"], caller.account, caller.region, plan.name)
            exchange = Exchange(self._cloud, caller, plan.role, config, request)
            self._pool.submit(self._work, _Work(key, request, place, exchange))

    def _measure(self, endpoint: Document, queue: list[tuple[str, Document]], instances: int) -> None:
        place, backlog = QueuePlace(endpoint["EndpointName"], endpoint["account"], endpoint["region"]), len(queue)
        oldest = max((time.time() - request["received"] for _, request in queue), default=0.0)
        self._meter.record(place, "ApproximateBacklogSize", backlog)
        self._meter.record(place, "ApproximateAgeOfOldestRequest", oldest)
        self._meter.record(place, "HasBacklogWithoutCapacity", float(bool(backlog) and not instances))
        if instances:
            self._meter.record(place, "ApproximateBacklogSizePerInstance", backlog / instances)

    def _work(self, work: _Work) -> None:
        try:
            self._end(work)
        except Exception:
            if not self._thread.stopping.is_set():  # else the next start asks again
                log.exception("asynchronous request %s of %s", work.request["InferenceId"], work.place.endpoint)
        finally:
            self._busy.discard(work.key)

    def _end(self, work: _Work) -> None:
        meter, place, received = self._meter, work.place, work.request["received"]
        meter.record(place, "TimeInBacklog", (time.time() - received) * 1e6)
        try:
            answer = self._answer(work)
        except Refused as none:
            log.info("asynchronous request %s waits on: %s", work.request["InferenceId"], none)
            return
        except Failed as failed:
            self._tell_failed(work, failed)
        else:
            self._notify(work, content_type=answer.content_type)
        meter.record(place, "InvocationsProcesssed", 1)  # spelled as AWS spells it
        meter.record(place, "TotalProcessingTime", (time.time() - received) * 1e3)
        self._cloud.store.delete(KIND, work.key)

    def _answer(self, work: _Work) -> Answer:
        """Read, ask, write; Failed says at which of them it ended."""
        request = work.request
        if time.time() - request["received"] > request["ttl"]:
            raise Failed(
                f"The request expired: it was queued for more than {request['ttl']} seconds", "ExpiredRequests"
            )
        began = time.monotonic()
        try:
            payload = work.exchange.payload()
        except FAULTS as error:
            raise Failed(f"ClientError: Failed to download the request: {error}", "RequestDownloadFailures") from None
        self._meter.record(work.place, "RequestDownloadLatency", (time.monotonic() - began) * 1e6)
        answer = self._ask(request, payload)
        if not 200 <= answer.status < 300:
            kind = "client" if 400 <= answer.status < 500 else "server"
            raise Failed(f"ClientError: Received {kind} error ({answer.status}) from model. See the SageMaker Endpoint "
                         "logs in your account for more information.", answer=answer)  # fmt: skip
        self._upload(work, request["output"], answer)
        return answer

    def _ask(self, request: Document, payload: bytes) -> Answer:
        headers = {
            header: request["params"][member] for member, header in _HEADERS.items() if member in request["params"]
        }
        try:
            return self._router.invoke(request["endpoint"], headers, payload, request["limit"])
        except Refused as refused:
            if refused.status != 504:
                raise
            reason = f"ClientError: The model did not answer within {request['limit']} seconds"
            raise Failed(reason) from None

    def _upload(self, work: _Work, place: str, answer: Answer) -> None:
        began = time.monotonic()
        try:
            work.exchange.put(place, answer)
        except FAULTS as error:
            raise Failed(f"ClientError: Failed to upload to {place}: {error}", "ResponseUploadFailures") from None
        self._meter.record(work.place, "ResponseUploadLatency", (time.monotonic() - began) * 1e6)

    def _tell_failed(self, work: _Work, failed: Failed) -> None:
        log.warning("asynchronous request %s of %s: %s", work.request["InferenceId"], work.place.endpoint, failed)
        if failed.answer is not None and work.request["failure"]:
            try:
                self._upload(work, work.request["failure"], failed.answer)
            except Failed as unwritten:
                failed = unwritten
        if failed.metric:
            self._meter.record(work.place, failed.metric, 1)
        self._meter.record(work.place, "InvocationFailures", 1)
        self._notify(work, failure=str(failed))

    def _notify(self, work: _Work, **outcome: str) -> None:
        try:
            work.exchange.notify(**outcome)
        except FAULTS as error:
            log.warning("endpoint %s: nobody could be notified: %s", work.place.endpoint, error)
            self._meter.record(work.place, "NotificationFailures", 1)
