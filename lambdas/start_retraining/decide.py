"""Start, defer or ignore, and why: a pure function of the request, the model, its recent executions and the limits."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lambdas.start_retraining.events import NONE, Request
from lambdas.start_retraining.route import Model

BUDGET_PERIOD = dt.timedelta(days=1)
CLOCK_SKEW = dt.timedelta(days=1)
"""How far a day's data may be ahead of the clock: somewhere it is tomorrow already."""
EVENT_SKEW = dt.timedelta(seconds=5)
"""How far the clocks of two services may differ; CodeCommit's events tell whole seconds only."""
BUSY_WAIT = dt.timedelta(minutes=5)
"""When a start is tried again that CodePipeline had no room for."""
TURN_WAIT = dt.timedelta(minutes=15)
"""When a request that hangs on another's execution looks again what became of it."""
_REASON_LIMIT = 200  # a pipeline variable takes 1,000 characters; the registry's metadata 256
BY_PEOPLE = ("push", "manual")
"""The cool-down is not for what a person did, and who did it hears when it has to wait."""
LOOK = "look"
"""In the name of a schedule that retrains only if the last retraining for drift did not help."""
_TURNS = ("push", "manual", "data", "schedule", "drift")
"""Requests that wait for the same moment come a minute after one another, so that one sees the other's execution."""
_SPLICING = re.compile(r"[^A-Za-z0-9 _.:/=+@()-]")


@dataclass(frozen=True)
class Limits:
    """The platform's guardrails on retraining."""

    maximum_per_day: int
    settling: dt.timedelta
    longest_wait: dt.timedelta
    clearing: dt.timedelta
    """How long drift alarms take until they can show what a retraining was worth."""


@dataclass(frozen=True)
class Run:
    """An execution of the model's pipeline; `trained` says that it cost, or will cost, a retraining."""

    id: str
    started: dt.datetime
    status: str
    trained: bool
    commit: str = ""
    trigger: str = NONE
    as_of: str = NONE

    @property
    def good(self) -> bool:
        return self.trained and self.status in ("InProgress", "Succeeded")


@dataclass(frozen=True)
class Start:
    """One pipeline execution to start; the same `token` never starts a second one."""

    model: str
    pipeline: str
    trigger: str
    reason: str
    as_of: str
    token: str

    @property
    def variables(self) -> list[dict[str, str]]:
        values = {"Trigger": self.trigger, "Reason": self.reason, "AsOf": self.as_of}
        return [{"name": name, "value": value} for name, value in values.items()]


@dataclass(frozen=True)
class Defer:
    """The request comes again at `until`; the same `name` never comes twice."""

    model: str
    trigger: str
    reason: str
    until: dt.datetime
    name: str


@dataclass(frozen=True)
class Ignore:
    """Nothing happens."""

    model: str | None
    trigger: str | None
    reason: str


Decision = Start | Defer | Ignore


def decide(request: Request, model: Model, runs: Sequence[Run], limits: Limits, now: dt.datetime) -> Decision:
    """What becomes of one request; `runs` are the executions of the last days, newest first."""
    # A deferred request comes when it is due: what it waited for is over, whatever this machine's clock says.
    now = max(now, request.due or now)
    if unwanted := _unwanted(request, model, now):
        return Ignore(model.name, request.trigger, unwanted)
    covering = _covering(request, runs)
    if done := next((run for run in covering if _is_enough(run, request)), None):
        return Ignore(model.name, request.trigger, f"execution {done.id} does it: {request.reason}")
    waits = [wait for wait in _waits(request, model, runs, covering, limits, now) if wait[0] > now]
    if waits:
        until, why = max(waits)
        helped = request.trigger == "drift" and _last_for_drift(runs)
        return _defer(request, model, until, why, kind=LOOK if helped else request.trigger, hopes=len(covering))
    # With the data's day: where schedules run faster than the clock, one window of arrivals can end more than once.
    token = digest(request.trigger, _once(request, runs), request.as_of, model.name)
    return Start(model.name, model.pipeline, request.trigger, plain(request.reason), request.as_of, token)


def look_again(request: Request, model: Model, now: dt.datetime) -> tuple[Defer, Request]:
    """After a start because of drift: an alarm that stays on says nothing more, whatever becomes of the execution.

    What comes again is a request of that later moment, so that the execution does not cover it.
    """
    end = max(now, request.due or now) + dt.timedelta(hours=model.cool_down_hours)
    defer = _defer(request, model, end, "looks whether an alarm is still on", kind=LOOK)
    return defer, replace(request, asked=defer.until)


def busy(request: Request, model: Model, why: str, now: dt.datetime) -> Defer:
    """A start that CodePipeline had no room for is tried again later."""
    end = max(now, request.due or now) + BUSY_WAIT
    return _defer(request, model, end, why, kind=request.trigger, alone=True)


def last_day(now: dt.datetime) -> str:
    """The newest day that data can be of."""
    return (now + CLOCK_SKEW).date().isoformat()


def _unwanted(request: Request, model: Model, now: dt.datetime) -> str | None:
    if request.trigger == "drift" and not model.on_drift:
        return "model.yaml says on_drift: false"
    if request.trigger == "data" and not model.on_new_data:
        return "model.yaml says on_new_data: false"
    if request.as_of not in (NONE, "") and request.as_of > last_day(now):
        return f"as_of {request.as_of} lies in the future"
    return None


def _covering(request: Request, runs: Sequence[Run]) -> list[Run]:
    """The executions that do what the request wants, since they began later: on the branch's head, on newest data."""
    if request.trigger == "manual":
        return []
    good = [run for run in runs if run.good]
    if good and request.commit and good[0].commit == request.commit and _as_new(request, good[0]):
        return good[:1]
    told = request.due is None and request.trigger != "schedule"  # by another service's clock
    after = request.asked + (EVENT_SKEW if told else dt.timedelta())
    return [run for run in good if run.started > after and _as_new(request, run)]


def _is_enough(run: Run, request: Request) -> bool:
    """Whether nothing is lost if an execution that is under way should fail: who pushed hears of it, a schedule comes
    again, and an event that is told twice has had its start; new data and drift would never be told again."""
    return run.status == "Succeeded" or request.trigger in ("push", "schedule") or run.trigger == request.trigger


def _last_for_drift(runs: Sequence[Run]) -> Run | None:
    return next((run for run in runs if run.good and run.trigger == "drift"), None)


def _once(request: Request, runs: Sequence[Run]) -> str:
    """What makes two requests the same start: the event, except that alarms which go on together are one."""
    if request.trigger != "drift":
        return request.id
    return f"{runs[0].id if runs else NONE} {request.asked:%Y-%m-%dT%H}"


def _under_way(runs: Sequence[Run]) -> Run | None:
    return next((run for run in runs if run.trained and run.status == "InProgress"), None)


def _as_new(request: Request, run: Run) -> bool:
    """Whether the execution takes data as new as the request would."""
    if run.as_of == NONE or run.trigger == "data":
        return run.as_of == NONE or request.as_of == NONE or run.as_of >= request.as_of
    return request.as_of != NONE and run.as_of >= request.as_of


def _waits(request: Request, model: Model, runs: Sequence[Run], covering: Sequence[Run], limits: Limits,
           now: dt.datetime) -> Iterator[tuple[dt.datetime, str]]:  # fmt: skip
    trained = sorted(run.started for run in runs if run.trained)
    if trained and request.trigger not in BY_PEOPLE:
        cool_down = dt.timedelta(hours=model.cool_down_hours)
        yield trained[-1] + cool_down, f"cool-down of {model.cool_down_hours} h after {shown(trained[-1])}"
    if len(trained) >= limits.maximum_per_day:
        yield (trained[-limits.maximum_per_day] + BUDGET_PERIOD,
               f"budget of {limits.maximum_per_day} retrainings a day is used up")  # fmt: skip
    if covering:
        yield now + TURN_WAIT, f"execution {covering[0].id} may do it"
    if request.trigger == "drift" and (last := _last_for_drift(runs)):
        yield last.started + limits.clearing, f"what execution {last.id} was worth shows by then"
    # In the pipeline the newer execution takes the place of one that waits, and this one has older data than that.
    if request.trigger == "manual" and request.as_of != NONE and (first := _under_way(runs)):
        yield now + TURN_WAIT, f"execution {first.id} goes first"


def _defer(request: Request, model: Model, until: dt.datetime, why: str, *, kind: str, hopes: int = 0,
           alone: bool = False) -> Defer:  # fmt: skip
    """Come again at the minute after `until`; requests of one kind that wait for the same moment are one.

    That loses nothing: whatever starts in between moves the moment, and with it the name. `hopes` is the number of
    executions under way that may do it: whoever came after one of them has one less, and goes first.
    """
    turn = _TURNS.index(request.trigger) + hopes * len(_TURNS)
    until = _minute_after(until) + turn * dt.timedelta(minutes=1)
    name = f"{model.slug}-{kind}-{stamp(until)}"
    if alone or request.trigger == "manual":  # each by hand may ask for other data
        name += f"-{digest(request.id)[:8]}"
    reason = f"{request.reason}; waits until {shown(until)}: {why}"
    return Defer(model.name, request.trigger, reason, until, name)


# -- texts --------------------------------------------------------------------------------------------------


def plain(reason: str) -> str:
    """The reason as a pipeline variable: the pipeline splices it into JSON, so a file's name must not be able to."""
    return " ".join(_SPLICING.sub(" ", reason).split())[:_REASON_LIMIT] or NONE


def digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def stamp(time: dt.datetime) -> str:
    return f"{time:%Y%m%dT%H%M%S}"


def shown(time: dt.datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"


def _minute_after(time: dt.datetime) -> dt.datetime:
    """Schedules fire within a minute, and not before."""
    return time.replace(second=0, microsecond=0) + dt.timedelta(minutes=1)
