"""The rehearsal's daemon: one background process per state directory, found by its lock, never by a bare pid."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import functools
import importlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import boto3
from botocore.config import Config

from rehearsal.cloud.embedding import Credentials, prepare, root_credentials
from rehearsal.listening import listen
from rehearsal.service import Service

PORT = 4566
READY_SECONDS = 60
STOP_SECONDS = EXIT_SECONDS = 30
KILL_SECONDS = 5


class NotStarted(Exception):
    """The daemon can't start or did not get ready; the message says what to do."""


@dataclass(frozen=True)
class Running:
    """A daemon that answers; its clients act as the account's root."""

    state_dir: Path
    port: int
    pid: int
    time_scale: float

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @functools.cached_property
    def root(self) -> Credentials:
        return root_credentials(self.state_dir)

    def environment(self) -> dict[str, str]:
        """The exports with which other clients speak to it."""
        return self.root.environment(self.endpoint)

    def client(self, service: str, *, account: str = "", region: str = "", **options: Any) -> Any:
        """A boto3 client of the root of `account`; the embedded AWS takes another account's id as its root's key."""
        key = self.root.access_key if account in ("", self.root.account) else account
        given = {"aws_access_key_id": key, "aws_secret_access_key": self.root.secret_key, **options}
        return _client(service, region or self.root.region, self.endpoint, tuple(given.items()))


_CONFIG = Config(
    retries={"total_max_attempts": 1}, read_timeout=960, max_pool_connections=32, s3={"addressing_style": "path"}
)


@functools.lru_cache(maxsize=64)
def _client(service: str, region: str, endpoint: str, options: tuple[tuple[str, Any], ...]) -> Any:
    """Kept, with its connections: what waits for something asks again and again."""
    return boto3.client(service, region, endpoint_url=endpoint, **{"config": _CONFIG, **dict(options)})


def up(state_dir: Path, *, port: int = PORT, time_scale: float = 1.0, services: Sequence[str] = ()) -> Running:
    """Start the daemon in the background, or find it running; returns when it answers. Port 0 takes a free one."""
    if running := find(state_dir):
        return running
    state_dir = state_dir.resolve()
    state_dir.mkdir(parents=True, exist_ok=True)
    (state_dir / "server.json").unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "rehearsal.server",
        "--state-dir",
        str(state_dir),
        "--port",
        str(port),
        "--time-scale",
        str(time_scale),
        *(f"--service={name}" for name in services),
    ]
    with (state_dir / "server.log").open("ab") as log_file:
        log_file.write(f"--- {time.strftime('%Y-%m-%dT%H:%M:%S')} starting\n".encode())
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), *_roots()]))},
        )
    _children[state_dir] = process
    return _await_ready(process, state_dir)


_children: dict[Path, subprocess.Popen[bytes]] = {}
"""Daemons that this process started, to be reaped when it also stops them."""


def _roots() -> list[str]:
    return [str(Path(__file__).resolve().parent.parent)]


def _await_ready(process: subprocess.Popen[bytes], state_dir: Path) -> Running:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if (running := find(state_dir)) is not None:
            return running
        if process.poll() is not None:
            raise NotStarted(_last_words(state_dir))
        time.sleep(0.05)
    process.kill()
    raise NotStarted(f"the rehearsal did not get ready in {READY_SECONDS} s; see {state_dir / 'server.log'}")


def _last_words(state_dir: Path) -> str:
    lines = (state_dir / "server.log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "the rehearsal ended without a word"


def find(state_dir: Path) -> Running | None:
    """The daemon of this state directory if it is alive and ready."""
    try:
        found = json.loads((state_dir / "server.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    if not _locked(state_dir):
        return None
    return Running(state_dir, found["port"], found["pid"], found["time_scale"])


def down(state_dir: Path) -> bool:
    """Stop the daemon; False if none was running. What it does not end in time is killed."""
    running = find(state_dir)
    if running is None:
        return False
    for sign, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, sign)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not _locked(state_dir):
                _reap(state_dir)
                return True
            time.sleep(0.05)
    raise NotStarted(f"process {running.pid} does not end")


def _reap(state_dir: Path) -> None:
    """Wait for a daemon that has saved everything and given up its lock; an interpreter may take its time to end."""
    child = _children.pop(state_dir.resolve(), None)
    if child is None:
        return
    for seconds in (EXIT_SECONDS, KILL_SECONDS):
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
        else:
            return
    raise NotStarted(f"process {child.pid} does not end, not even when killed; end it by hand: kill -9 {child.pid}")


def _locked(state_dir: Path) -> bool:
    try:
        with (state_dir / "server.lock").open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


# -- in the daemon ------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m rehearsal.server", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--time-scale", type=float, default=1.0)
    parser.add_argument(
        "--service",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="host these services only (default: all of the rehearsal's)",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s [%(name)s] %(message)s")
    logging.getLogger("rehearsal").setLevel(logging.INFO)
    try:
        serve(options.state_dir.resolve(), options.port, options.time_scale, options.service)
    except NotStarted as error:
        sys.exit(str(error))


def serve(state_dir: Path, port: int, time_scale: float, services: Sequence[str]) -> None:
    """Run the daemon in this process until SIGTERM or SIGINT."""
    state_dir.mkdir(parents=True, exist_ok=True)
    with _alone(state_dir), _listener(port) as listener:
        port = listener.getsockname()[1]
        root = root_credentials(state_dir)
        prepare(state_dir, port, root, time_scale)
        from rehearsal.cloud.facade import EmbeddedCloud  # only now: ministack reads its settings at import

        cloud = EmbeddedCloud(state_dir, port, root, time_scale, _classes(services))
        asyncio.run(_serve(cloud, listener, {"pid": os.getpid(), "port": port, "time_scale": time_scale}))


async def _serve(cloud: Any, listener: socket.socket, facts: dict[str, Any]) -> None:
    import uvicorn

    config = uvicorn.Config(
        cloud.application,
        interface="asgi3",
        lifespan="on",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=3600,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    stopping = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stopping.set)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]  # ours come first
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if not serving.done():
        await asyncio.to_thread(cloud.start)
        _write(cloud.state_dir / "server.json", facts)
        await asyncio.wait([serving, asyncio.create_task(stopping.wait())], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.to_thread(cloud.stop)
    server.should_exit = True
    await serving


def _write(path: Path, facts: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(facts))
    partial.replace(path)


@contextlib.contextmanager
def _alone(state_dir: Path) -> Iterator[IO[str]]:
    with (state_dir / "server.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotStarted(
                f"a rehearsal is running in {state_dir} already; `python -m rehearsal down` stops it"
            ) from None
        (state_dir / "server.json").unlink(missing_ok=True)
        yield handle


@contextlib.contextmanager
def _listener(port: int) -> Iterator[socket.socket]:
    try:
        listener = listen(port)
    except OSError:
        raise NotStarted(f"port {port} is in use; stop what uses it, or choose another with --port") from None
    with listener:
        yield listener


def _classes(names: Sequence[str]) -> Sequence[type[Service]]:
    if not names:
        from rehearsal.services import SERVICES

        return SERVICES
    return [getattr(importlib.import_module(module), name) for module, _, name in (n.partition(":") for n in names)]


if __name__ == "__main__":
    main()
