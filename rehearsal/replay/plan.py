"""The time that a replay goes through, cut into steps."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass

_STEP = re.compile(r"([1-9]\d{0,2})([dw])")
_DAYS = {"d": 1, "w": 7}
SCHEDULE, DATA, DRIFT = TRIGGERS = ("schedule", "data", "drift")


class Refused(Exception):
    """What was asked can't be replayed; the message says what is allowed or what to do."""


@dataclass(frozen=True)
class Step:
    """The days `since` through `through` of one step; `number` counts from 1."""

    number: int
    since: dt.date
    through: dt.date

    @property
    def days(self) -> int:
        return (self.through - self.since).days + 1


@dataclass(frozen=True)
class Plan:
    """From the first day through the last in steps of `days`; the first model is trained on what was before.

    `triggers` are what may retrain it from then on.
    """

    model: str
    first: dt.date
    last: dt.date
    days: int
    triggers: tuple[str, ...] = TRIGGERS

    @property
    def eve(self) -> dt.date:
        return self.first - dt.timedelta(days=1)

    @property
    def waits_for_monitoring(self) -> bool:
        """Where new data retrains, nothing is left to drift; without it each step waits until it was looked for."""
        return DRIFT in self.triggers and DATA not in self.triggers

    def steps(self) -> Iterator[Step]:
        """Whole steps only: a rest of fewer days would be judged on fewer rows than the others."""
        since, number = self.first, 1
        while (through := since + dt.timedelta(days=self.days - 1)) <= self.last:
            yield Step(number, since, through)
            since, number = through + dt.timedelta(days=1), number + 1


def plan(model: str, first: str, last: str, step: str, triggers: str = ",".join(TRIGGERS)) -> Plan:
    """The plan that the command line asks for; Refused names everything that is wrong with it."""
    days = {"--from": _day(first), "--to": _day(last)}
    wrong = [f"{name} is {given!r}; give a day YYYY-MM-DD" for (name, day), given in
             zip(days.items(), (first, last), strict=True) if day is None]  # fmt: skip
    match = _STEP.fullmatch(step)
    if match is None:
        wrong.append(f"--step is {step!r}; give days or weeks, such as 7d or 1w")
    chosen = tuple(name for name in TRIGGERS if name in triggers.split(","))
    if not chosen or len(chosen) != len(triggers.split(",")):
        wrong.append(f"--triggers is {triggers!r}; give some of {','.join(TRIGGERS)}")
    if wrong or match is None or days["--from"] is None or days["--to"] is None:
        raise Refused("; ".join(wrong))
    made = Plan(model, days["--from"], days["--to"], int(match[1]) * _DAYS[match[2]], chosen)
    if next(made.steps(), None) is None:
        raise Refused(
            f"from {first} to {last} there is no whole step of {made.days} days; move --to or take a shorter --step"
        )
    return made


def _day(text: str) -> dt.date | None:
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        return None
    return day if day.isoformat() == text else None
