"""The `Cloud` that our services see: sessions of roles, clients, events and logs of the embedded AWS."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from ministack import app as ministack
from ministack.core.responses import request_scope
from ministack.services import eventbridge

from rehearsal.audit import AuditLog
from rehearsal.cloud import (
    decisions,
    encryption,
    implied_checks,
    observability_types,
    persistence,
    provisioning,
    resource_policies,
    roles,
)
from rehearsal.cloud.alarms import Alarms
from rehearsal.cloud.async_invocations import AsyncInvocations
from rehearsal.cloud.embedding import Credentials
from rehearsal.cloud.front_door import FrontDoor
from rehearsal.cloud.functions import Functions
from rehearsal.cloud.log_streams import LogStream, LogStreams
from rehearsal.cloud.object_events import ObjectEvents
from rehearsal.cloud.resource_types import lacking
from rehearsal.cloud.rules import Rules
from rehearsal.cloud.schedules import Clock, Schedules
from rehearsal.cloud.state_machines import StateMachines
from rehearsal.service import Caller, Params, Permission, Service
from rehearsal.store import Store

_CLIENT = Config(
    retries={"total_max_attempts": 1},
    read_timeout=960,
    connect_timeout=10,
    max_pool_connections=50,
    s3={"addressing_style": "path"},
)

CLIENTS = 64


class EmbeddedCloud:
    """One embedded AWS in this process, with our services in it."""

    def __init__(
        self, state_dir: Path, port: int, root: Credentials, time_scale: float, services: Iterable[type[Service]]
    ) -> None:
        self.state_dir, self.time_scale = state_dir, time_scale
        self.endpoint = f"http://127.0.0.1:{port}"
        self.store = Store(state_dir / "rehearsal.sqlite")
        self.audit = AuditLog(state_dir)
        self.roles = roles.Roles(root, self.audit)
        self._clients: OrderedDict[tuple[str, str, str], Any] = OrderedDict()
        self._making = threading.Lock()
        self._boto = boto3.session.Session()
        self._streams = LogStreams()
        self.services = [service(self) for service in services]
        implied_checks.install()
        resource_policies.install(self.services)
        decisions.install(self.audit)
        FrontDoor(self.services).install()
        files = persistence.StateFiles()
        types = {name: kind for service in self.services for name, kind in service.resource_types().items()}
        provisioning.install({**lacking(self), **types}, self.emit, files.save)
        encryption.install()
        observability_types.install(self.authorize)
        StateMachines(self.roles.assume, self.signed, self.roles.decide).install()
        Functions(self.roles).install()
        self._invocations = AsyncInvocations(self.store, time_scale)
        self._invocations.install()
        ObjectEvents().install()
        Rules(self.client, self.roles, put_on_bus, time_scale).install()
        self._alarms = Alarms(self.client, self.roles, self.emit, on_loop, time_scale)
        self._alarms.install()
        persistence.remember_previous_stacks()
        self._files = files
        self._files.install()
        Schedules(self.store, Clock(self.store, time_scale)).install()

    async def application(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application; loopback counts as TLS, so that `aws:SecureTransport` conditions hold."""
        await ministack.app({**scope, "scheme": "https"} if scope["type"] == "http" else scope, receive, send)

    def start(self) -> None:
        """Call once the endpoint answers, from a worker thread."""
        for service in self.services:
            service.start()
        persistence.repair()
        self._files.start()
        self._invocations.start()
        self._alarms.start()

    def stop(self) -> None:
        """Call while the endpoint still answers, from a worker thread."""
        self._alarms.stop()
        for service in self.services:
            service.stop()
        self._streams.close()
        self._files.close()

    # -- what services use (see `rehearsal.service.Cloud`) ----------------------------------------------

    def client(
        self,
        service: str,
        *,
        role: str | None = None,
        by: str = "",
        account: str = "",
        region: str = "",
        session: str = "rehearsal",
        source: str = "",
    ) -> Any:
        if role:
            who = self.roles.assume(role, by, session, region, source=source, account=account)
        else:
            who = self.roles.root(account, region)
        return self.signed(service, who)

    def signed(self, service: str, who: Credentials) -> Any:
        """The (shared, thread-safe) client of `service` that signs as `who`.

        The ones used last are kept: every execution has a session of its own, and each client has connections."""
        key = (service, who.access_key, who.region)
        with self._making:
            if key in self._clients:
                self._clients.move_to_end(key)
            else:
                self._clients[key] = self._boto.client(
                    service,
                    who.region,
                    endpoint_url=self.endpoint,
                    config=_CLIENT,
                    aws_access_key_id=who.access_key,
                    aws_secret_access_key=who.secret_key,
                    aws_session_token=who.token,
                )
                while len(self._clients) > CLIENTS:
                    self._clients.popitem(last=False)[1].close()  # whoever still has it just connects again
            return self._clients[key]

    def environment(
        self, role: str, by: str, *, region: str = "", session: str = "rehearsal", source: str = ""
    ) -> dict[str, str]:
        return self.roles.assume(role, by, session, region, source=source).environment(self.endpoint)

    def emit(self, source: str, detail_type: str, detail: Params, resources: list[str], caller: Caller) -> None:
        entry = {"Source": source, "DetailType": detail_type, "Detail": json.dumps(detail), "Resources": resources}

        def put() -> None:
            with request_scope(caller.account, caller.region):
                eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)

        on_loop(put)

    def authorize(self, role: str, by: str, permission: Permission, caller: Caller) -> None:
        who = self.roles.assume(role, by, "rehearsal", caller.region, account=caller.account)
        self.roles.decide(who, permission)

    def logs(
        self, group: str, stream: str, caller: Caller, *, role: str | None = None, by: str = "", source: str = ""
    ) -> LogStream:
        place = {"account": caller.account, "region": caller.region}
        return self._streams.open(self.client("logs", role=role, by=by, source=source, **place), group, stream)


def put_on_bus(event: Params, bus: str, account: str, region: str) -> None:
    """Dispatch an event, as it is, to the rules of a bus of any account."""

    def put() -> None:
        with request_scope(account, region):
            eventbridge._dispatch_event({**event, "EventBusName": bus})

    on_loop(put)


def on_loop(act: Callable[[], None]) -> None:
    """Run `act` on ministack's event loop, where its own handlers run; its dictionaries have no locks."""
    loop = ministack._MAIN_LOOP
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is loop:
        act()
        return

    async def run() -> None:
        act()

    asyncio.run_coroutine_threadsafe(run(), loop).result()
