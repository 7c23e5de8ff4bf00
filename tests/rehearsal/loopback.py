"""A light stand-in for `rehearsal.cloud`: our services behind boto3 on a free loopback port, without IAM.

Whatever is not ours (S3, Logs, Step Functions, …) is answered by the embedded AWS in the same process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("MINISTACK_LOG_LEVEL", "ERROR")
os.environ.setdefault("LOG_LEVEL", "ERROR")

import boto3
import uvicorn
from botocore.config import Config

from rehearsal.service import Caller, Params, Permission, Service, ServiceError, model
from rehearsal.store import Store
from tests.rehearsal.waiting import until

ACCOUNT, REGION = "000000000000", "us-east-1"


@dataclass
class Stream:
    lines: list[str] = field(default_factory=list)

    def write(self, line: str) -> None:
        self.lines.append(line)


@dataclass
class Loopback:
    """The Cloud of the tests: `events`, `streams` and `authorized` keep what services did."""

    store: Store
    state_dir: Path
    endpoint: str
    time_scale: float = 60.0
    services: list[Service] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    streams: dict[tuple[str, str], Stream] = field(default_factory=dict)
    authorized: list[tuple[str, Permission]] = field(default_factory=list)

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
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=region or REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 2}, s3={"addressing_style": "path"}),
        )

    def environment(
        self, role: str, by: str, *, region: str = "", session: str = "rehearsal", source: str = ""
    ) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": region or REGION,
            "AWS_DEFAULT_REGION": region or REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def emit(self, source: str, detail_type: str, detail: Params, resources: list[str], caller: Caller) -> None:
        self.events.append({"source": source, "detail-type": detail_type, "detail": detail, "resources": resources})

    def authorize(self, role: str, by: str, permission: Permission, caller: Caller) -> None:
        self.authorized.append((role, permission))

    def logs(
        self, group: str, stream: str, caller: Caller, *, role: str | None = None, by: str = "", source: str = ""
    ) -> Stream:
        return self.streams.setdefault((group, stream), Stream())

    def service(self, name: str) -> Service:
        return next(service for service in self.services if service.name == name)


@contextmanager
def serve(*services: type[Service], tmp_path: Path, time_scale: float = 60.0) -> Iterator[Loopback]:
    """Run the services until the block ends; `Loopback.client(name)` gives boto3 clients."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        cloud = Loopback(
            Store(tmp_path / "store.sqlite"), tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}", time_scale
        )
        cloud.services.extend(service(cloud) for service in services)
        server = uvicorn.Server(uvicorn.Config(_application(cloud), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        until(lambda: server.started, "the server did not start")
        try:
            for service in cloud.services:
                service.start()
            yield cloud
        finally:
            for service in cloud.services:
                service.stop()
            server.should_exit = True
            thread.join(10)
            cloud.store.close()


def _application(cloud: Loopback) -> Any:
    from ministack import app as embedded

    async def application(scope: Any, receive: Any, send: Any) -> None:
        embedded._MAIN_LOOP = asyncio.get_running_loop()
        body = b""
        while scope["type"] == "http":
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        answer = await asyncio.to_thread(_answer, cloud, scope, body)
        if answer is None:
            await embedded.app(scope, _replay(body), send)
            return
        status, headers, content = answer
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
            }
        )
        await send({"type": "http.response.body", "body": content})

    return application


def _replay(body: bytes) -> Any:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _answer(cloud: Loopback, scope: Any, body: bytes) -> Any:
    headers = {k.decode().lower(): v.decode() for k, v in scope["headers"]}
    for service in cloud.services:
        for prefix, handler in getattr(service, "http_routes", dict)().items():
            if scope["path"].startswith(prefix):
                return handler(scope["method"], scope["path"], scope["query_string"].decode(), headers, body)
    signed_for = headers.get("authorization", "").partition("Credential=")[2].split("/")[3:4]
    for service in cloud.services:
        speaks_json = model(service.name).metadata["protocol"] == "json"
        if (
            signed_for == [_signing_name(service)]
            and speaks_json == ("x-amz-target" in headers)
            and (answer := _own(service, scope, headers, body))
        ):
            return answer
    return None


def _own(service: Service, scope: Any, headers: dict[str, str], body: bytes) -> Any:
    caller = Caller(ACCOUNT, REGION, f"arn:aws:iam::{ACCOUNT}:root", "test")
    try:
        operation, params = service.parse(scope["method"], _asked(scope), headers, body)
        if service.falls_through and not service.runs(operation):
            return None
        with contextlib.suppress(KeyError):
            service.permissions(operation, params, caller)
        return service.respond(operation, service.call(operation, params, caller))
    except ServiceError as error:
        return service.respond_error(error)


def _asked(scope: Any) -> str:
    query = scope["query_string"].decode()
    return f"{scope['path']}?{query}" if query else str(scope["path"])


def _signing_name(service: Service) -> str:
    metadata = model(service.name).metadata
    return str(metadata.get("signingName") or metadata["endpointPrefix"])
