"""When a schedule is due: `at(…)`, `rate(…)` and `cron(…)` in a time zone, as EventBridge Scheduler reads them."""

from __future__ import annotations

import datetime as dt
import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from aws_croniter import AwsCroniter

_AT = re.compile(r"at\((\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})\)")
_RATE = re.compile(r"rate\(([1-9]\d*) (minutes?|hours?|days?)\)")
_CRON = re.compile(r"cron\((.+)\)")
_SECONDS = {"minute": 60, "hour": 3600, "day": 86400}
_SKIPPED = 10
"""Occurrences in a row that daylight saving time may take away before a cron counts as never due."""


class InvalidExpression(ValueError):
    """The expression or its time zone is none that Scheduler takes."""


def is_one_time(expression: str) -> bool:
    return expression.startswith("at(")


def first_time(expression: str, zone: str, now: float, start: float | None) -> float | None:
    """The first time it is due (epoch seconds), or None if never; a rate without a start begins at once.

    A one-time schedule is due at its time even if that is past: the caller decides whether to take it."""
    _zone(zone)
    if match := _AT.fullmatch(expression):
        return _moment(match[1], zone)
    begin = max(now, start or now)
    if _RATE.fullmatch(expression):
        _seconds(expression)
        return begin
    return _next_cron(expression, zone, begin - 1)


def next_time(expression: str, zone: str, last: float, now: float) -> float | None:
    """When it is due after `last`, the first such time that is not past; None for a one-time schedule."""
    if is_one_time(expression):
        return None
    if _RATE.fullmatch(expression):
        interval = _seconds(expression)
        missed = max(0, int((now - last) // interval))
        return last + interval * (missed + 1)
    return _next_cron(expression, zone, max(last, now))


def _seconds(expression: str) -> int:
    match = _RATE.fullmatch(expression)
    if match is None or (match[1] == "1") == match[2].endswith("s"):
        raise InvalidExpression(f"Invalid Schedule Expression {expression}.")
    return int(match[1]) * _SECONDS[match[2].removesuffix("s")]


def _moment(text: str, zone: str) -> float:
    try:
        return dt.datetime.fromisoformat(text).replace(tzinfo=_zone(zone)).timestamp()
    except ValueError as error:
        raise InvalidExpression(f"Invalid Schedule Expression at({text}): {error}.") from None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidExpression(f"Invalid Schedule Expression Timezone {name}.") from None


def _next_cron(expression: str, zone: str, after: float) -> float | None:
    """Occurrences are found on the wall clock; an hour that spring takes away is skipped, autumn's comes once."""
    cron, place = _cron(expression), _zone(zone)
    wall = dt.datetime.fromtimestamp(after, place).replace(tzinfo=None)
    for _ in range(_SKIPPED):
        found = cron.get_next(wall.replace(tzinfo=dt.UTC))[0]
        if found is None:
            return None
        wall = found.replace(tzinfo=None)
        moment: float = wall.replace(tzinfo=place).timestamp()
        exists = dt.datetime.fromtimestamp(moment, place).replace(tzinfo=None) == wall
        if exists and moment > after:
            return moment
    return None


def _cron(expression: str) -> AwsCroniter:
    match = _CRON.fullmatch(expression)
    try:
        return AwsCroniter(" ".join(match[1].split())) if match else _refuse(expression)
    except InvalidExpression:
        raise
    except Exception as error:  # the library raises one class per field, and plain errors for a few values
        raise InvalidExpression(f"Invalid Schedule Expression {expression}: {error}") from None


def _refuse(expression: str) -> AwsCroniter:
    raise InvalidExpression(f"Invalid Schedule Expression {expression}.")
