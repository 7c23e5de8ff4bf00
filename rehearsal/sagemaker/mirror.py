"""Shadow traffic: a copy of a production variant's requests for the shadow variant, whose answers nobody gets.

A copy never delays or fails the request it was made of: it has connections of its own, waits in a bounded line, and
is dropped, and counted as dropped, when the line is full.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from rehearsal.sagemaker.fleet import Fleet, Variant
from rehearsal.sagemaker.meter import Meter, Place

log = logging.getLogger("rehearsal")
WAITING = 100
"""How many copies for one shadow variant may be under way; SageMaker tells no number."""
CONNECTIONS = 16


@dataclass
class _Line:
    """The copies for one shadow variant that are under way, and how near the next one is."""

    waiting: int = 0
    share: float = 0.0
    next: Any = field(default_factory=itertools.count)


class Mirror:
    """Copies requests; used from the router's event loop only."""

    def __init__(self, meter: Meter, seconds: float) -> None:
        self._meter = meter
        self._lines: WeakKeyDictionary[Variant, _Line] = WeakKeyDictionary()
        self._copies: set[asyncio.Task[None]] = set()
        self._client = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=CONNECTIONS),
            timeout=httpx.Timeout(seconds, connect=2, pool=None),
            trust_env=False,
        )

    def offer(
        self, fleet: Fleet, headers: dict[str, str], body: bytes, place: Callable[[Fleet, Variant], Place]
    ) -> None:
        """Copy this request to the fleet's shadow variant, if it has one and it is its turn."""
        for shadow in fleet.shadows:
            line = self._lines.setdefault(shadow, _Line())
            if not _due(line, fleet, shadow):
                continue
            if line.waiting >= WAITING:
                self._meter.dropped(place(fleet, shadow))
                continue
            line.waiting += 1
            copy = asyncio.create_task(self._send(fleet, shadow, line, headers, body, place(fleet, shadow)))
            self._copies.add(copy)
            copy.add_done_callback(self._copies.discard)

    async def close(self) -> None:
        for copy in self._copies:
            copy.cancel()
        await asyncio.gather(*self._copies, return_exceptions=True)
        await self._client.aclose()

    async def _send(
        self, fleet: Fleet, shadow: Variant, line: _Line, headers: dict[str, str], body: bytes, place: Place
    ) -> None:
        began = time.monotonic()
        try:
            status, answer = await self._ask(shadow, line, headers, body)
            took = time.monotonic() - began
            self._meter.invoked(place, status, took if answer else 0.0, took, len(shadow.instances))
            if answer is not None and answer.is_success and fleet.capture is not None:
                kind = answer.headers.get("content-type", "")
                fleet.capture.offer(shadow.plan.name, headers, body, kind, answer.content)
        except Exception:  # nobody waits for this answer: it must not end the router
            log.exception("a copy for the shadow variant %s was lost", shadow.plan.name)
        finally:
            line.waiting -= 1

    async def _ask(
        self, shadow: Variant, line: _Line, headers: dict[str, str], body: bytes
    ) -> tuple[int, httpx.Response | None]:
        living = [instance for instance in shadow.instances if instance.alive() and not instance.stopping]
        if not living:
            return 503, None
        instance = living[next(line.next) % len(living)]
        instance.in_flight += 1
        try:
            url = f"http://127.0.0.1:{instance.port}/invocations"
            answer = await self._client.post(url, headers=headers, content=body)
        except httpx.ReadTimeout:
            return 504, None
        except httpx.TransportError as error:
            log.info("instance %s of a shadow variant did not answer: %r", instance.id, error)
            return 503, None
        finally:
            instance.in_flight -= 1
        return answer.status_code, answer


def _due(line: _Line, fleet: Fleet, shadow: Variant) -> bool:
    """The shadow's weight is its share of the production variant's requests, as a ratio of both weights."""
    line.share += min(1.0, shadow.plan.weight / (fleet.variants[0].plan.weight or 1.0))
    if line.share < 1 - 1e-9:
        return False
    line.share -= 1
    return True
