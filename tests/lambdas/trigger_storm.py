"""Days of triggers for two models, drawn from a seed: pushes, data, schedules, alarms and requests by hand, of which
some are told twice, late, or not at all, while pipelines run, fail and are superseded and calls are throttled."""

from __future__ import annotations

import datetime as dt
import heapq
import itertools
import json
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lambdas.start_retraining.handler import Unfinished
from tests.lambdas.archive_source import from_archives, put
from tests.lambdas.retraining_world import (
    TRAIN,
    Execution,
    Params,
    World,
    added,
    alarm_event,
    deleted,
    look_event,
    manual_event,
    modified,
    pipeline,
    push_event,
    schedule_event,
)

MODELS = ("flight_delay", "bike_demand")
SHARED = "model_code/shared/features.py"
WATCHED = {"flight_delay": (TRAIN, SHARED), "bike_demand": ("model_code/bike_demand/train.py", SHARED)}
PATHS = (TRAIN, "model_code/bike_demand/train.py", SHARED, "docs/model.md")
"""What a push may change."""
DAYS, DAY = 6, 86_400
Files = Mapping[str, str]
LONG_AGO = "2026-11-20"
RETRIES = 2
"""How often Lambda repeats an invocation that failed."""
THROTTLED = ("StartPipelineExecution", "ListPipelineExecutions", "PutObject", "CreateSchedule", "GetDifferences")


@dataclass(eq=False)
class Flight:
    """An execution on its way through the pipeline: verified, then one at a time retrained."""

    execution: Execution
    model: str
    files: Files
    """The source is fetched when it starts."""
    moves: int
    """How often the branch had moved by then."""
    phase: str = "verify"


@dataclass
class Storm:
    """What happens, and what came of it."""

    world: World
    chance: random.Random
    archives: bool
    """Whether the source is a zip in S3, and no repository."""
    files: dict[str, Files] = field(default_factory=dict)
    """Commit to what it holds: path to the commit that wrote the file last."""
    removed: dict[str, dt.datetime] = field(default_factory=dict)
    """Models that the head does not have, and since when."""
    landed: dict[str, list[dt.datetime]] = field(default_factory=lambda: defaultdict(list))
    flights: list[Flight] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._queue: list[tuple[dt.datetime, int, Callable[[], Any]]] = []
        self._numbers, self._known, self._moves = itertools.count(), set[str](), 0
        self._ready: dict[str, dt.datetime] = {}
        world = self.world
        world.head, world.commits = None, set()
        world.deploy("flight_delay", "model_code/shared")
        world.deploy("bike_demand", "model_code/shared", cool_down_hours=self.chance.choice([0, 6]))
        self._plan()
        self._run()

    # -- what happens -----------------------------------------------------------------------------------

    def _plan(self) -> None:
        chance, whenever = self.chance, lambda: self.chance.uniform(100, DAYS * DAY)
        declared = [_declaration(model) for model in MODELS]
        self._after(0, lambda: self._push([*PATHS, *declared]))
        for _ in range(chance.randint(1, 12)):
            at, paths = whenever(), chance.sample(PATHS, chance.choice([1, 1, 1, 2]))
            self._after(at, lambda paths=paths: self._push(paths))
            if chance.random() < 0.4:
                self._after(at + chance.uniform(0.2, 600), lambda: self._push([chance.choice(PATHS)]))
        for _ in range(chance.choice([0, 0, 1, 2])):
            self._after(whenever(), self._force_back)
        for model in chance.choices(MODELS, k=chance.choice([0, 0, 1])):
            at = whenever()
            self._after(at, lambda model=model: self._remove(model))
            if chance.random() < 0.5:
                self._after(at + chance.uniform(1, DAY), lambda model=model: self._push([_declaration(model)]))
        for model, day in itertools.product(MODELS, range(DAYS)):
            self._after(day * DAY + 54_000, lambda model=model: self._tell(schedule_event(model, self._time())))
            if chance.random() < 0.8:
                self._data(model, day)
        for model in chance.choices(MODELS, k=chance.choice([0, 1, 3])):
            self._after(whenever(), lambda model=model: self._drift(model))
            asked = {"as_of": LONG_AGO} if chance.random() < 0.5 else {}
            self._after(whenever(), lambda model=model, asked=asked: self._tell(manual_event(model, **asked)))
        for _ in range(chance.choice([0, 0, 5, 20])):
            self._after(whenever(), self._throttle)
        for hour in range(24 * (DAYS + 4)):
            self._after(hour * 3600 + 1234, lambda: self._invoke(look_event(), "look"))

    @property
    def head(self) -> Files:
        return self.files.get(self.world.head or "", {})

    def _push(self, paths: Sequence[str]) -> None:
        commit = f"{len(self.files):040x}"
        self._move(commit, self.head | dict.fromkeys(paths, commit))

    def _remove(self, model: str) -> None:
        """The whole folder; what is shared stays."""
        commit = f"{len(self.files):040x}"
        own = f"model_code/{model}/"
        self._move(commit, {path: by for path, by in self.head.items() if not path.startswith(own)})

    def _force_back(self) -> None:
        """The branch is where it was before; a newer commit may be gone for good."""
        before = self.world.head or ""
        commit = self.chance.choice([*self.files])
        self._move(commit, self.files[commit])
        if commit != before and self.chance.random() < 0.5:
            self.world.commits.discard(before)

    def _move(self, commit: str, files: Files) -> None:
        world, before = self.world, self.world.head or ""
        self._moves += 1
        self.files[commit] = files
        for older, held in self.files.items():
            world.between[older, commit], world.between[commit, older] = _changes(held, files), _changes(files, held)
        world.head = commit
        world.commits.add(commit)
        world.folders = {model: ["model.yaml"] for model in MODELS if _declaration(model) in files}
        self.removed = {model: self.removed.get(model, world.now) for model in MODELS if model not in world.folders}
        event = push_event(world.now, commitId=commit, oldCommitId=before)
        if self.archives:
            event = put(world, commit, files) | {"time": self._time()}
        self._tell(event, lost=0.1)

    def _data(self, model: str, day: int) -> None:
        at = day * DAY + self.chance.uniform(3600, 80_000)
        of = (self.world.now + dt.timedelta(days=day - self.chance.choice([0, 1, 1, 3]))).date().isoformat()
        for number in range(self.chance.randint(1, 8)):
            name = f"{day}-{number}.csv"
            late = self.chance.uniform(0, self.chance.choice([10, 2000, 20_000]))
            self._after(at + late, lambda name=name: self._land(model, of, name))

    def _land(self, model: str, day: str, name: str) -> None:
        self.landed[model].append(self.world.now)
        self._tell(self.world.land(day, model, name))

    def _drift(self, model: str) -> None:
        name = f"{model.replace('_', '-')}-drift-predictions"
        self.world.alarms[name] = "ALARM"
        self._tell(alarm_event(name) | {"time": self._time(), "id": f"alarm-{next(self._numbers)}"})
        self._after(self.chance.uniform(3600, 5 * DAY), lambda: self.world.alarms.update({name: "OK"}))

    def _throttle(self) -> None:
        """The next call of one kind, so that no invocation is given up."""
        if not any(self.world.refuse.values()):
            self.world.refuse[self.chance.choice(THROTTLED)] = ["ThrottlingException"]

    def _time(self) -> str:
        return f"{self.world.now:%Y-%m-%dT%H:%M:%SZ}"

    # -- how it is told ---------------------------------------------------------------------------------

    def _after(self, seconds: float, work: Callable[[], Any]) -> None:
        self._at(self.world.now + dt.timedelta(seconds=seconds), work)

    def _at(self, moment: dt.datetime, work: Callable[[], Any]) -> None:
        heapq.heappush(self._queue, (moment, next(self._numbers), work))

    def _tell(self, event: Params, lost: float = 0.0) -> None:
        drawn = self.chance.random()
        for _ in range(0 if drawn < lost else 2 if drawn < lost + 0.15 else 1):
            self._invoke_after(self.chance.uniform(0, 200 if self.chance.random() < 0.3 else 3), event)

    def _invoke_after(self, seconds: float, event: Params) -> None:
        request = f"request-{next(self._numbers)}"
        self._after(seconds, lambda: self._invoke(event, request))

    def _invoke(self, event: Params, request: str, retries: int = RETRIES) -> None:
        try:
            self.world.invoke(event, request)
        except (Unfinished, ClientError):
            assert retries
            self._after(60, lambda: self._invoke(event, request, retries - 1))

    def _run(self) -> None:
        world = self.world
        while True:
            due = min(world.schedules.values(), key=lambda found: found["at"], default=None)
            if due and (not self._queue or due["at"] <= self._queue[0][0]) and due["at"].year < dt.MAXYEAR:
                world.now = max(world.now, due["at"])
                self._fire(due)
            elif self._queue:
                at, _, work = heapq.heappop(self._queue)
                world.now = max(world.now, at)
                work()
            else:
                return
            self._take_off()

    def _fire(self, schedule: Params) -> None:
        """It invokes at least once, and is deleted a while later; until then its name is taken."""
        event = json.loads(schedule["input"])
        for late in [0 if self.chance.random() < 0.8 else 30, *([20] if self.chance.random() < 0.1 else [])]:
            self._invoke_after(late, event)
        schedule["at"] = dt.datetime.max.replace(tzinfo=dt.UTC)
        self._after(self.chance.uniform(0, 50), lambda: self.world.schedules.pop(schedule["name"]))

    # -- pipelines --------------------------------------------------------------------------------------

    def _take_off(self) -> None:
        world = self.world
        for model in MODELS:
            for execution in world.executions[pipeline(model)]:
                if execution.id not in self._known:
                    self._known.add(execution.id)
                    execution.commit = world.head or ""
                    flight = Flight(execution, model, self.head, self._moves)
                    self.flights.append(flight)
                    # No execution passes another one.
                    ready = world.now + dt.timedelta(seconds=self.chance.uniform(60, 400))
                    self._ready[model] = max(ready, self._ready.get(model, ready))
                    self._at(self._ready[model], lambda flight=flight: self._verified(flight))

    def _verified(self, flight: Flight) -> None:
        if self.chance.random() < 0.08:
            flight.execution.status, flight.execution.stages, flight.phase = "Failed", ("Source", "Verify"), "over"
            return
        for other in self.flights:
            if other.model == flight.model and other.phase == "waits":
                other.execution.status, other.phase = "Superseded", "over"
        flight.phase = "waits"
        self._next(flight.model)

    def _next(self, model: str) -> None:
        own = [flight for flight in self.flights if flight.model == model]
        waiting = next((flight for flight in own if flight.phase == "waits"), None)
        if waiting and not any(flight.phase == "trains" for flight in own):
            waiting.phase = "trains"
            self._after(self.chance.uniform(900, 3000), lambda: self._trained(waiting))

    def _trained(self, flight: Flight) -> None:
        flight.execution.status, flight.phase = "Failed" if self.chance.random() < 0.1 else "Succeeded", "over"
        self._next(flight.model)

    # -- what came of it --------------------------------------------------------------------------------

    def flown(self, model: str) -> list[Flight]:
        """The model's executions that another one did not take the place of, oldest first."""
        return sorted((flight for flight in self.flights
                       if flight.model == model and flight.execution.status != "Superseded"),
                      key=lambda flight: flight.execution.started)  # fmt: skip


def watched(model: str, files: Files) -> Files:
    """What the model is made of."""
    return {path: files.get(path, "") for path in (*WATCHED[model], _declaration(model))}


def _declaration(model: str) -> str:
    return f"model_code/{model}/model.yaml"


def _changes(before: Files, after: Files) -> list[Params]:
    both = before.keys() & after.keys()
    return [*modified(*sorted(path for path in both if before[path] != after[path])),
            *added(*sorted(after.keys() - both)), *deleted(*sorted(before.keys() - both))]  # fmt: skip


def storm(seed: int, patch: pytest.MonkeyPatch, *, archives: bool) -> Storm:
    """All that a seed brings, to its end."""
    world = World(patch)
    if archives:
        from_archives(patch)
    return Storm(world, random.Random(seed), archives)
