"""Sets a replay up, as far as it is not: the embedded cloud, the model's stacks, data of before, its first champion."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from rehearsal import arrivals, assembly, predictions, server, waiting
from rehearsal import state_dir as state
from rehearsal.connection import look, repository_url
from rehearsal.landscape import ClientOf, Landscape, ModelParts, NotDeployed, in_place
from rehearsal.replay import clone, happened
from rehearsal.replay.plan import Plan, Refused
from rehearsal.replay.rows import ModelFolder, days, read_folder, write_raw
from rehearsal.triggers import triggers


@dataclass
class Stage:
    """Where a replay plays; `raw` holds the sample data of all its time, on its way to the lake."""

    at: server.Running
    client_of: ClientOf
    landscape: Landscape
    folder: ModelFolder
    raw: Path
    console: Console
    timeout: float

    @property
    def serving(self) -> ClientOf:
        """Clients of the account that serves."""
        return in_place(self.client_of, self.parts.places[self.environment])

    @property
    def parts(self) -> ModelParts:
        return self.landscape.model(self.folder.name)

    @property
    def environment(self) -> str:
        return self.parts.environments[-1]

    @property
    def work(self) -> Path:
        return self.raw.parent

    def live(self) -> tuple[str, str]:
        """Version and address of what is live in production."""
        endpoint, _ = predictions.live_version(self.client_of, self.landscape, self.folder.name, self.environment)
        return str(endpoint["version"]), str(endpoint["url"])

    def land(self, through: str) -> int:
        """Put the raw data up to a day that is not in the lake yet; the number of objects."""
        files = [day for day in days(self.raw) if day.isoformat() <= through]
        return arrivals.put(self.client_of, self.raw, [f"dt={day}" for day in files], self.parts.raw_data)[0]

    def monitored(self, began: float) -> str:
        """Wait until the monitoring ran once from `began` on; how that ended."""
        deadline = time.monotonic() + self.timeout
        with self.console.status("the next scheduled monitoring"):
            while (ended := happened.monitored(self.client_of, self.parts, began)) is None:
                if time.monotonic() > deadline:
                    raise Refused(f"no monitoring of {self.folder.name} ended within {self.timeout:g} s")
                time.sleep(POLL_SECONDS)
        return ended

    def settle(self, began: float, pending: Callable[[], list[str]]) -> None:
        """Wait until nothing runs and nothing waits to run; Refused if that takes too long."""
        deadline = time.monotonic() + self.timeout
        quiet = 0
        while quiet < QUIET_ROUNDS:
            left = max(1.0, deadline - time.monotonic())
            outcome = waiting.wait(
                self.client_of, self.landscape, [self.folder.name], left, self.console, began, POLL_SECONDS
            )
            if outcome.timed_out or time.monotonic() > deadline:
                raise Refused(
                    f"{self.folder.name} did not come to rest in {self.timeout:g} s; the same command goes on from here"
                )
            quiet = 0 if pending() else quiet + 1


POLL_SECONDS = 2.0
"""A step takes minutes: asking more often takes more from the jobs than it gains."""
HEARD_SECONDS = 120.0
"""An event that is late is no harm: its data is only trained on once more."""
QUIET_ROUNDS = 2
"""Between an object and the schedule that waits for more of them lies a function's cold start."""


def set_up(plan: Plan, state_dir: Path, repository: Path, console: Console, time_scale: float, timeout: float) -> Stage:
    """Everything up to the first champion, which is trained on the data of before the first day."""
    state.require_git()
    state.prepare(state_dir)
    at = server.up(state_dir, port=0, time_scale=time_scale)
    repository_clone, raw = state_dir / "clone", state_dir / "replay" / plan.model / "raw"
    for said in clone.make(repository, repository_clone, plan, at.time_scale):
        console.print(f"only in this replay: {said}", highlight=False)
    if not (raw.parent / "deployed").is_file():
        _deploy(at, repository_clone, plan.model, console)
        raw.parent.mkdir(parents=True, exist_ok=True)
        (raw.parent / "deployed").touch()
    client_of, landscape = look(at)
    if not landscape.model(plan.model).endpoints:
        raise NotDeployed(f"{plan.model} has no endpoint; a replay asks one")
    stage = Stage(at, client_of, landscape, read_folder(repository_clone, plan.model), raw, console, timeout)
    with console.status(f"{plan.model}: sample data of {plan.last.year}"):
        write_raw(stage.folder, raw, plan.last)
    _first_champion(stage, plan)
    return stage


def _deploy(at: server.Running, repository_clone: Path, model: str, console: Console) -> None:
    """The shared stacks and the model's own: a push retrains what is deployed, and others have no data here."""

    def concerns(stack: assembly.StackArtifact) -> bool:
        outputs = stack.template.get("Outputs", {})
        return str(outputs.get("Model", {}).get("Value", model)) == model

    with console.status("the templates of the replay's clone"):
        cdk_out = clone.synthesize(repository_clone)
    assembly.deploy(at, cdk_out, console, concerns)


def _heard(stage: Stage, objects: int) -> None:
    """Wait until the door to retraining knows of these objects: what it hears of after a push is trained on again."""
    deadline = time.monotonic() + HEARD_SECONDS
    while time.monotonic() < deadline:
        told = triggers(stage.client_of, stage.landscape.start_retraining_log)
        if sum(row["count"] for row in told if row["trigger"] == "data") >= objects:
            return
        time.sleep(POLL_SECONDS)


def _first_champion(stage: Stage, plan: Plan) -> None:
    try:
        stage.live()
        return
    except predictions.NoPrediction:
        stage.console.rule(f"The first champion, trained on data through {plan.eve}", align="left")
    began = time.time()
    _heard(stage, stage.land(plan.eve.isoformat()))
    url = repository_url(stage.at, stage.landscape)
    clone.git(stage.folder.repository, "push", "--quiet", url, "HEAD:refs/heads/main")
    stage.settle(began, list)
    try:
        stage.live()
    except predictions.NoPrediction:
        told = "; ".join(waiting.failures(stage.client_of, stage.parts)) or "nothing was approved"
        raise Refused(f"there is no first champion: {told}") from None
