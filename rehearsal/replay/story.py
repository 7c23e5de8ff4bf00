"""Goes through the steps: requests and their answers first, then the step's data and what it brings about.

A step's data lands only after its requests were answered, so no live answer comes from a model that saw it.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from rich.console import Console

from rehearsal.replay import frozen, happened
from rehearsal.replay.answers import Answers, ask, check_metric, measure
from rehearsal.replay.journal import Journal, Record
from rehearsal.replay.plan import Plan, Step
from rehearsal.replay.report import document
from rehearsal.replay.rows import Labelled, labelled
from rehearsal.replay.stage import Stage, set_up


class World(Protocol):
    """What the story needs of the world; `Rehearsed` is the one there is."""

    metric: str
    maximize: bool

    def champion(self) -> Record:
        """What it takes to serve the model that is live now."""

    def rows(self, step: Step) -> Labelled:
        """The step's requests, and what became of each."""

    def live(self, rows: Labelled) -> Answers: ...

    def frozen(self, first: Record, rows: Labelled) -> Answers: ...

    def land(self, step: Step, began: float) -> Record:
        """Let the step's data arrive and wait until all that follows rests; what happened since `began` (epoch seconds)
        until `ended_at`."""

    def ahead(self, step: Step) -> None:
        """This step's rows will be wanted next: make them while something else is waited for."""


class Rehearsed:
    """The rehearsal on a state directory."""

    def __init__(self, plan: Plan, stage: Stage) -> None:
        self._plan, self._stage = plan, stage
        self.metric, self.maximize = stage.folder.metric, stage.folder.maximize
        self._worker = ThreadPoolExecutor(1, "rows")
        self._rows: dict[int, Future[Labelled]] = {}

    @property
    def _frozen_name(self) -> str:
        return f"{self._stage.parts.endpoints[self._stage.environment]}-frozen"[:63]

    def champion(self) -> Record:
        return frozen.champion(self._stage.serving, self._stage.parts.endpoints[self._stage.environment])

    def rows(self, step: Step) -> Labelled:
        with self._stage.console.status(f"{step.since} to {step.through}: requests, by the model's own features"):
            made = self._rows.pop(step.number, None)
            return made.result() if made else self._labelled(step)

    def _labelled(self, step: Step) -> Labelled:
        return labelled(self._stage.folder, self._stage.raw, step, self._stage.work / "features")

    def live(self, rows: Labelled) -> Answers:
        return ask(self._stage.live()[1], rows.requests)

    def frozen(self, first: Record, rows: Labelled) -> Answers:
        return ask(frozen.serve(self._stage.serving, self._frozen_name, first), rows.requests)

    def land(self, step: Step, began: float) -> Record:
        stage = self._stage
        objects = stage.land(step.through.isoformat())
        monitoring = stage.monitored(time.time()) if self._plan.waits_for_monitoring else None
        stage.settle(began, lambda: happened.waiting(stage.client_of, stage.folder.name))
        ended = time.time()
        found = happened.between(stage.client_of, stage.parts, began, ended, self.metric)
        return {"objects": objects, "monitoring": monitoring, **found, "live_after": stage.live()[0], "ended_at": ended}

    def ahead(self, step: Step) -> None:
        self._rows = {step.number: self._worker.submit(self._labelled, step)}

    def close(self) -> None:
        self._worker.shutdown()
        frozen.remove(self._stage.serving, self._frozen_name)


def replay(
    plan: Plan, state_dir: Path, repository: Path, console: Console, time_scale: float, timeout: float
) -> Record:
    """The whole replay, or what is left of it; the report's document."""
    state_dir = state_dir.resolve()  # the clone's app and the feature script run in another folder
    journal = Journal(state_dir / "replay" / f"{plan.model}.json", plan)
    world = Rehearsed(plan, set_up(plan, state_dir, repository, console, time_scale, timeout))
    tell(plan, journal, world, console)
    world.close()
    return told(plan, journal, world)


def tell(plan: Plan, journal: Journal, world: World, console: Console) -> None:
    """Every step that is not finished, in turn."""
    check_metric(world.metric)
    first = journal.frozen
    if first is None:
        journal.freeze(first := world.champion())
    steps = list(plan.steps())
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        if not journal.step(step.number).get("finished"):
            console.rule(f"step {step.number} of {len(steps)}: {step.since} to {step.through}", align="left")
            _play(step, after, first, journal, world, console)


def told(plan: Plan, journal: Journal, world: World) -> Record:
    """What the journal holds, as a report."""
    first = journal.frozen or {}
    return document(plan.model, world.metric, world.maximize, journal.steps, str(first.get("version", "")))


def _play(step: Step, after: Step | None, first: Record, journal: Journal, world: World, console: Console) -> None:
    began = time.time()
    record = journal.step(step.number)
    if "live" not in record:  # a step that was interrupted later was answered before its data landed: that stands
        record = journal.note(step.number, **_answered(step, first, world))
    console.print(_line(world.metric, record), highlight=False)
    if "landed_at" not in record:  # what a landing brought before it was interrupted is this step's, too
        record = journal.note(step.number, landed_at=time.time())
    if after is not None:
        world.ahead(after)
    # From where the step before was told, so that what began in between is told, too.
    since: float = journal.step(step.number - 1).get("ended_at") or record["landed_at"]
    happening = world.land(step, since)
    journal.note(step.number, **happening, seconds=round(time.time() - began, 1), finished=True)
    console.print(f"  version {happening['live_after']} is live now", highlight=False)


def _answered(step: Step, first: Record, world: World) -> Record:
    rows = world.rows(step)
    facts: Record = {"since": step.since.isoformat(), "through": step.through.isoformat(), "rows": len(rows.labels)}
    for name, answers in (("live", world.live(rows)), ("frozen", world.frozen(first, rows))):
        facts[name] = {"metric": measure(world.metric, rows.labels, answers), "versions": answers.versions}
    return facts


def _line(metric: str, record: Record) -> str:
    live, still = record["live"], record["frozen"]
    by = ", ".join(f"version {version}" for version in live["versions"])
    return f"  {record['rows']} requests: {metric} {live['metric']:.4f} live ({by}), {still['metric']:.4f} frozen"
