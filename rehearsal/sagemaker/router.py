"""The router in front of every endpoint: plain HTTP on loopback, in a thread and event loop of its own.

`http://127.0.0.1:<port>/endpoints/<name>/{ping,invocations}`. A request goes to the instances of the fleet that is
live when it arrives; one that meets a dying instance goes to another, since no byte of an answer was sent yet.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import uvicorn

from rehearsal.listening import listen_if_free
from rehearsal.sagemaker.async_request import Answer
from rehearsal.sagemaker.fleet import Fleet, Throttled, Unhealthy, Variant
from rehearsal.sagemaker.instance import Instance
from rehearsal.sagemaker.meter import Meter, Place
from rehearsal.sagemaker.mirror import Mirror
from rehearsal.sagemaker.route import Refused, Route, name_of
from rehearsal.store import Store

log = logging.getLogger("rehearsal")
KIND, KEY = "sagemaker/router", "address"
PAYLOAD_BYTES = Variant.payload_bytes
MODEL_SECONDS = 60.0
"""How long SageMaker waits for a model's answer."""
ENDPOINT_HEADER, VARIANT_HEADER = "x-rehearsal-endpoint", "x-amzn-sagemaker-target-variant"
_NOT_PASSED_ON = {"host", "connection", "content-length", "transfer-encoding", "expect", ENDPOINT_HEADER}
_ATTEMPTS = 10
_EXPECTED_SECONDS = 0.05

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def endpoint_url(store: Store, name: str) -> str | None:
    """The address of an endpoint that answers /ping and /invocations, or None while no router runs."""
    address = store.get(KIND, KEY)
    return f"http://127.0.0.1:{address['port']}/endpoints/{name}" if address else None


class Router:
    """Routes by endpoint ARN; `switch` is atomic for every request that arrives after it."""

    def __init__(self, store: Store, meter: Meter) -> None:
        self._store, self._meter = store, meter
        self._routes: dict[str, Route] = {}
        self._expected: set[str] = set()
        self._client: httpx.AsyncClient | None = None
        self._mirror: Mirror | None = None
        self._server: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen, on the same port as the last time if it is free."""
        listener = listen_if_free(int((self._store.get(KIND, KEY) or {"port": 0})["port"]))
        self._store.put(KIND, KEY, {"port": listener.getsockname()[1]})
        server = self._server = uvicorn.Server(
            uvicorn.Config(
                self._application,
                interface="asgi3",
                lifespan="off",
                proxy_headers=False,
                access_log=False,
                log_level="warning",
                timeout_keep_alive=75,  # longer than clients keep an idle connection, so that none uses a dying one
                timeout_graceful_shutdown=2,
            )
        )
        self._thread = threading.Thread(target=self._run, args=(server, listener), name="router", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(10)

    def expect(self, arn: str) -> None:
        """What asks for this endpoint waits: it is in service, and its fleet is on its way."""
        self._expected.add(arn)

    def switch(self, arn: str, fleet: Fleet) -> None:
        before = self._routes.get(arn)
        self._routes[arn] = Route(arn, fleet, before.requests if before else 0)
        self._expected.discard(arn)

    def shift(self, arn: str, green: Fleet, shares: dict[str, float]) -> None:
        """Give the new fleet its share of the traffic, beside the live one."""
        route = self._routes[arn]
        self._routes[arn] = Route(arn, route.fleet, route.requests, green, shares)

    def shift_back(self, arn: str) -> None:
        """All traffic to the live fleet again."""
        route = self._routes[arn]
        self._routes[arn] = Route(arn, route.fleet, route.requests)

    def remove(self, arn: str) -> None:
        self._routes.pop(arn, None)
        self._expected.discard(arn)

    def instances(self, arn: str) -> int:
        """How many instances of the live fleet can be asked."""
        route = self._routes.get(arn)
        variants = route.fleet.variants if route else []
        return sum(i.alive() and not i.stopping for variant in variants for i in [*variant.instances])

    def invoke(self, arn: str, headers: dict[str, str], body: bytes, seconds: float) -> Answer:
        """Ask whatever is live, from a thread of its own; Refused when there is nothing, or no answer in time."""
        if self._loop is None or self._loop.is_closed():
            raise Refused(503, "the router does not run")
        asked = self._forward(arn, "POST", "invocations", headers, body, seconds)
        _, answer = asyncio.run_coroutine_threadsafe(asked, self._loop).result()
        return Answer(answer.status_code, answer.headers.get("content-type", ""), answer.content)

    def requests(self, arn: str) -> int:
        """How many invocations an endpoint got since the rehearsal started."""
        return self._routes[arn].requests if arn in self._routes else 0

    def _run(self, server: uvicorn.Server, listener: socket.socket) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            limits = httpx.Limits(max_connections=200, max_keepalive_connections=50, keepalive_expiry=30)
            async with httpx.AsyncClient(limits=limits, trust_env=False) as self._client:
                self._mirror = Mirror(self._meter, MODEL_SECONDS)
                await server.serve(sockets=[listener])
                await self._mirror.close()

        asyncio.run(serve())

    async def _application(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        try:
            status, headers, content = await self._serve(scope, receive)
        except Refused as refused:
            status, headers, content = refused.status, [(b"content-type", b"text/plain")], str(refused).encode()
        headers.append((b"content-length", str(len(content)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _serve(self, scope: dict[str, Any], receive: Receive) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        headers = {key.decode().lower(): value.decode() for key, value in scope["headers"]}
        name, action = _parse(scope["path"])
        route = await self._route(name, headers.get(ENDPOINT_HEADER))
        body = await _body(receive, min(variant.payload_bytes for variant in route.fleet.variants))
        if action == "invocations":
            route.requests += 1
        passed_on = {key: value for key, value in headers.items() if key not in _NOT_PASSED_ON}
        variant, answer = await self._forward(route.arn, scope["method"], action, passed_on, body)
        made = [
            (b"content-type", answer.headers.get("content-type", "application/octet-stream").encode()),
            (b"x-amzn-invoked-production-variant", variant.plan.name.encode()),
        ]
        if variant.plan.package:
            made.append((b"x-rehearsal-model-package", variant.plan.package.encode()))
        return answer.status_code, made, answer.content

    async def _route(self, name: str, arn: str | None) -> Route:
        known = {*self._routes, *self._expected}
        found = sorted({arn} & known if arn else {each for each in known if name_of(each) == name})
        if len(found) > 1:
            raise Refused(
                409,
                f"Endpoint {name} is in several accounts or regions; name one in {ENDPOINT_HEADER}: {', '.join(found)}",
            )
        while found and found[0] in self._expected:  # as long as a fleet may take to start, or to fail
            await asyncio.sleep(_EXPECTED_SECONDS)
        if not found or found[0] not in self._routes:
            raise Refused(404, f"Endpoint {name} is not in service")
        return self._routes[found[0]]

    async def _forward(
        self,
        arn: str,
        method: str,
        action: str,
        headers: dict[str, str],
        body: bytes,
        seconds: float = MODEL_SECONDS,
    ) -> tuple[Variant, httpx.Response]:
        tried: set[str] = set()
        began = time.monotonic()
        place: Place | None = None
        for attempt in range(_ATTEMPTS):
            # The route is read anew each time: the fleet may have been replaced while this request was under way.
            route = self._routes.get(arn)
            if route is None:
                break
            fleet, variant = route.variant(headers.get(VARIANT_HEADER))
            place = _place(arn, fleet, variant) if action == "invocations" else None
            await self._wake(variant, place)
            instance = route.instance(fleet, variant, tried)
            if instance is not None:
                if place is not None and not tried:
                    self._copy(arn, fleet, headers, body)
                tried.add(instance.id)
                asked = time.monotonic()
                try:
                    answer = await self._ask(instance, method, action, headers, body, seconds)
                except Refused as refused:
                    self._measure(place, refused.status, asked, began, variant)
                    raise
                if answer is not None:
                    self._measure(place, answer.status_code, asked, began, variant)
                    if place is not None and fleet.capture is not None and answer.is_success:
                        kind = answer.headers.get("content-type", "")
                        fleet.capture.offer(variant.plan.name, headers, body, kind, answer.content)
                    return variant, answer
                if place is not None:
                    self._meter.failed(place)
            await asyncio.sleep(0.05 * attempt)
        if place is not None:
            self._meter.invoked(place, 503, 0.0, time.monotonic() - began, 1)
        raise Refused(503, f"Endpoint {name_of(arn)} has no healthy instance")

    async def _wake(self, variant: Variant, place: Place | None) -> None:
        """Whatever a variant does before it takes a request; Refused when it takes none."""
        try:
            seconds = await variant.wake()
        except Throttled as error:
            raise Refused(429, str(error)) from None
        except Unhealthy as error:
            raise Refused(503, str(error)) from None
        if seconds and place is not None:
            self._meter.set_up(place, seconds)

    def _copy(self, arn: str, fleet: Fleet, headers: dict[str, str], body: bytes) -> None:
        assert self._mirror is not None
        self._mirror.offer(fleet, headers, body, lambda of, variant: _place(arn, of, variant))

    def _measure(self, place: Place | None, status: int, asked: float, began: float, variant: Variant) -> None:
        if place is not None:
            now = time.monotonic()
            self._meter.invoked(place, status, now - asked, now - began, len(variant.instances))

    async def _ask(
        self, instance: Instance, method: str, action: str, headers: dict[str, str], body: bytes, seconds: float
    ) -> httpx.Response | None:
        """The instance's answer, or None if it went away before it gave one."""
        assert self._client is not None
        instance.in_flight += 1
        try:
            return await self._client.request(
                method,
                f"http://127.0.0.1:{instance.port}/{action}",
                headers=headers,
                content=body,
                timeout=httpx.Timeout(seconds, connect=2),
            )
        except httpx.ReadTimeout:
            raise Refused(504, "Your invocation timed out while waiting for a response from the model") from None
        except httpx.TransportError as error:
            log.info("instance %s did not answer: %r", instance.id, error)
            return None
        finally:
            instance.in_flight -= 1


def _place(arn: str, fleet: Fleet, variant: Variant) -> Place:
    account, region = arn.split(":")[4], arn.split(":")[3]
    return Place(name_of(arn), variant.plan.name, fleet.config, account, region, fleet.asynchronous)


def _parse(path: str) -> tuple[str, str]:
    parts = path.strip("/").split("/")
    if len(parts) != 3 or parts[0] != "endpoints" or parts[2] not in ("ping", "invocations"):
        raise Refused(404, "/endpoints/<name>/ping and /endpoints/<name>/invocations are served here")
    return parts[1], parts[2]


async def _body(receive: Receive, limit: int) -> bytes:
    content, more = bytearray(), True
    while more:
        message = await receive()
        content += message.get("body", b"")
        more = message.get("more_body", False)
        if len(content) > limit:
            raise Refused(413, f"the payload is larger than {limit // 1024 // 1024} MB")
    return bytes(content)
