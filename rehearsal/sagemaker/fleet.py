"""A fleet: the model server processes that stand for the instances behind an endpoint, one process an instance."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rehearsal.environments import interpreter, scrubbed
from rehearsal.model_server import SERVE
from rehearsal.sagemaker.artifact import fetch, pull
from rehearsal.sagemaker.capture import Capture
from rehearsal.sagemaker.container import SAGEMAKER, image_name
from rehearsal.sagemaker.instance import Instance, drain_all, end, end_the_hung, stop_all
from rehearsal.sagemaker.variant_plan import VariantPlan
from rehearsal.service import Caller, Cloud, Logs
from rehearsal.store import Store

log = logging.getLogger("rehearsal")
CONTAINER_ROOT = "/opt/ml/"
PROCESS = "sagemaker/server-process"
RESTART_SECONDS, FOLLOW_SECONDS = 1.0, 5.0


class Throttled(Exception):
    """More requests at once than a variant may serve."""


class Unhealthy(Exception):
    """A fleet that did not come up; the message is SageMaker's FailureReason."""


class Variant:
    """The instances of one production variant; one that dies or hangs is replaced, as SageMaker does."""

    payload_bytes = 25 * 1024 * 1024
    """SageMaker's limit for a real-time request (its API model still states the older 6 MiB)."""

    def __init__(self, plan: VariantPlan, model_dir: Path, cloud: Cloud, endpoint: str, caller: Caller) -> None:
        self.plan, self.instances = plan, list[Instance]()
        self._model_dir, self._cloud, self._endpoint, self._caller = model_dir, cloud, endpoint, caller
        self._stopping = threading.Event()
        self._changing = threading.Lock()
        self.in_service = False

    def launch(self) -> None:
        self.instances = [self._spawn() for _ in range(self.plan.count)]

    def wait_healthy(self, give_up: threading.Event) -> None:
        for instance in self.instances:
            self._wait_healthy(instance, give_up)

    def serve(self) -> None:
        """In service from now on, and watched."""
        self.in_service = True
        watched = (lambda: self.instances, self._stopping)
        threading.Thread(target=end_the_hung, args=watched, name=f"pings {self._endpoint}", daemon=True).start()

    def _wait_healthy(self, instance: Instance, give_up: threading.Event) -> None:
        deadline = time.monotonic() + self.plan.startup_seconds
        while not instance.healthy():
            if not instance.alive() or time.monotonic() > deadline:
                raise Unhealthy(self._ping_failed(instance))
            if give_up.wait(0.05):
                raise Unhealthy("lost when the rehearsal stopped")

    def resize(self, count: int, give_up: threading.Event) -> None:
        """Add healthy instances, or take the newest out of service and let them finish what they serve."""
        more = [self._spawn() for _ in range(count - len(self.instances))]
        try:
            for instance in more:
                self._wait_healthy(instance, give_up)
        except Unhealthy:
            stop_all(more)
            raise
        with self._changing:
            self.plan = replace(self.plan, count=count)
            fewer = self.instances[count:]
            self.instances = [*self.instances[:count], *more]
        if fewer:
            drain_all(fewer)
            stop_all(fewer)

    async def wake(self) -> float:
        """Called for every request before an instance is chosen: the seconds that a cold start took, if there was
        one; `Throttled` when the variant serves as many requests as it can."""
        return 0.0

    def stop(self) -> None:
        """Ask every instance to finish what it serves and go; insist after the grace period."""
        self._stopping.set()
        stop_all(self.instances)

    def _spawn(self) -> Instance:
        name = f"i-{secrets.token_hex(9)[:17]}"
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            fd = listener.fileno()
            # stdin tells the server that the rehearsal is gone, also when it was killed.
            process = subprocess.Popen(
                [
                    str(interpreter(server_image(self.plan.image))),
                    str(SERVE),
                    "--fd",
                    str(fd),
                    "--model-dir",
                    str(self._model_dir),
                    "--instance",
                    name,
                ],
                pass_fds=(fd,),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self._model_dir,
                env=self._environment(),
                start_new_session=True,
            )
            instance = Instance(name, listener.getsockname()[1], process)
        self._cloud.store.put(PROCESS, name, {"pid": process.pid})
        instance.follower = threading.Thread(target=self._follow, args=(instance,), name=name, daemon=True)
        instance.follower.start()
        return instance

    def _environment(self) -> dict[str, str]:
        """The container's environment; there is no container, so `/opt/ml/` is the model's own folder."""
        root = f"{self._model_dir.parent}/"
        own = {
            key: root + value.removeprefix(CONTAINER_ROOT) if value.startswith(CONTAINER_ROOT) else value
            for key, value in self.plan.environment.items()
        }
        defaults = {
            "OMP_NUM_THREADS": "1",
            "SM_MODEL_DIR": str(self._model_dir),
            "HOME": str(self._model_dir.parent),
            "SAGEMAKER_BASE_DIR": root,
            "AWS_REGION": self._caller.region,
        }
        return scrubbed(**{**defaults, **own})

    def _follow(self, instance: Instance) -> None:
        """Carry an instance's output to its log stream; when it dies unasked, put another in its place."""
        logs = self._open_log(instance)
        # Leaving the block closes the pipes and waits for the process.
        with instance.process as process:
            assert process.stdout is not None
            for line in process.stdout:
                text = line.decode(errors="replace").rstrip("\n")
                instance.tail.append(text)
                with contextlib.suppress(Exception):  # a log that can't be written must not stop the server's output
                    logs.write(text)
        self._cloud_forgets(instance)
        if not instance.stopping and self._served(instance):
            self._died(instance)

    def _open_log(self, instance: Instance) -> Logs:
        group, stream = f"/aws/sagemaker/Endpoints/{self._endpoint}", f"{self.plan.name}/{instance.id}"
        try:
            return self._cloud.logs(group, stream, self._caller, role=self.plan.role, by=SAGEMAKER)
        except Exception as error:  # SageMaker serves without logs when the role may not write them
            log.warning("%s %s: no log: %s", group, stream, error)
            return _NoLog()

    def _served(self, instance: Instance) -> bool:
        return not self._stopping.is_set() and instance in self.instances and self.in_service

    def _died(self, instance: Instance) -> None:
        """Put another in its place."""
        log.warning("endpoint %s: instance %s died, replacing it", self._endpoint, instance.id)
        with self._changing:
            self.instances = [other for other in self.instances if other is not instance]
        while not self._stopping.wait(RESTART_SECONDS):
            fresh = self._spawn()
            try:
                self._wait_healthy(fresh, self._stopping)
            except Unhealthy:
                fresh.process.kill()
                continue
            with self._changing:
                if needed := len(self.instances) < self.plan.count:
                    self.instances = [*self.instances, fresh]
            if not needed or self._stopping.is_set():  # it was scaled in meanwhile, or all of it ends
                end(fresh)
            return

    def _cloud_forgets(self, instance: Instance) -> None:
        with contextlib.suppress(Exception):  # the store may be closed already; the next start looks at every pid
            self._cloud.store.delete(PROCESS, instance.id)

    def _ping_failed(self, instance: Instance) -> str:
        if not instance.alive() and instance.follower is not None:
            instance.follower.join(FOLLOW_SECONDS)  # its last words may not have been read yet
        last = next((line for line in reversed(instance.tail) if line.strip()), "")
        return (
            f"The primary container for production variant {self.plan.name} did not pass the ping health check. "
            f"Please check CloudWatch logs for this endpoint. {last}"
        ).strip()[:1024]


class Fleet:
    """All variants of one endpoint configuration, serving or about to."""

    def __init__(
        self,
        plans: list[VariantPlan],
        folder: Path,
        cloud: Cloud,
        endpoint: str,
        caller: Caller,
        config: str,
        kind_of: Callable[[VariantPlan], type[Variant]] = lambda plan: Variant,
    ) -> None:
        self.folder, self.config, self.variants, self.shadows = folder, config, list[Variant](), list[Variant]()
        self._kind_of = kind_of
        self.capture: Capture | None = None
        self.asynchronous = False
        self._plans, self._cloud, self._endpoint, self._caller = plans, cloud, endpoint, caller

    def start(self, give_up: threading.Event) -> None:
        """Fetch image and artefact, start every instance, return when each passed its health check."""
        for plan in self._plans:
            pull(self._cloud, plan.image, plan.role, self._caller)
            place = self.folder / plan.name
            if plan.model_data_url:
                model_dir = fetch(self._cloud, plan.model_data_url, plan.role, self._caller, place)
            else:
                model_dir = place / "model"
                model_dir.mkdir(parents=True, exist_ok=True)
            variant = self._kind_of(plan)(plan, model_dir, self._cloud, self._endpoint, self._caller)
            (self.shadows if plan.shadow else self.variants).append(variant)
        for variant in (*self.variants, *self.shadows):
            variant.launch()
        for variant in (*self.variants, *self.shadows):
            variant.wait_healthy(give_up)
            variant.serve()
        if give_up.is_set():
            raise Unhealthy("lost when the rehearsal stopped")

    def drain(self, seconds: float) -> None:
        """Wait until no request is in flight, at most `seconds`; for a shadow's copies nobody waits."""
        deadline = time.monotonic() + seconds
        while any(i.in_flight for v in self.variants for i in v.instances) and time.monotonic() < deadline:
            time.sleep(0.02)

    def resize(self, wanted: dict[str, dict[str, Any]], give_up: threading.Event) -> None:
        """By variant, the `count` of instances and the `weight` to have from now on."""
        for variant in self.variants:
            if asked := wanted.get(variant.plan.name):
                variant.resize(asked["count"], give_up)
                variant.plan = replace(variant.plan, weight=asked["weight"])

    def stop(self) -> None:
        for variant in (*self.variants, *self.shadows):
            variant.stop()
        if self.capture is not None:
            self.capture.stop()


class _NoLog:
    def write(self, line: str) -> None:
        log.debug("%s", line)


def server_image(image: str) -> str:
    """The environment that serves an image: the image's own packages and an ASGI server."""
    return f"{image_name(image)}-server"


def end_orphans(store: Store) -> list[str]:
    """End the servers that a killed rehearsal left behind; returns their instances. A pid that became someone
    else's is left alone: the process must carry the instance's own name in its arguments."""
    ended = []
    for name, document in store.list(PROCESS):
        if name in _arguments(document["pid"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(document["pid"], signal.SIGKILL)
            ended.append(name)
        store.delete(PROCESS, name)
    return ended


def _arguments(pid: int) -> str:
    on_linux = Path(f"/proc/{pid}/cmdline")
    if Path("/proc/self/cmdline").exists():
        with contextlib.suppress(OSError):
            return on_linux.read_bytes().decode(errors="replace")
        return ""
    return subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True).stdout
