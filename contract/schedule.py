"""The syntax of EventBridge schedules: `rate(1 day)` and `cron(minutes hours day-of-month month day-of-week year)`."""

from __future__ import annotations

import re
from itertools import pairwise

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minutes", 0, 59, ()),
    ("hours", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 1, 7, _DAYS),
    ("year", 1970, 2199, ()),
)
_RATE = re.compile(r"rate\(([1-9][0-9]{0,4}) (minute|hour|day)(s?)\)")
_CRON = re.compile(r"cron\(([^()]+)\)")


def schedule_error(text: str) -> str | None:
    """What is wrong with a schedule, or None."""
    if rate := _RATE.fullmatch(text):
        singular = rate[1] == "1"
        return None if singular != bool(rate[3]) else "allowed: singular unit for 1, plural otherwise: rate(2 days)"
    cron = _CRON.fullmatch(text)
    if not cron:
        return "allowed: rate(1 day) or cron(0 3 * * ? *)"
    fields = cron[1].split()
    if len(fields) != len(_FIELDS):
        return f"has {len(fields)} cron fields; allowed: {len(_FIELDS)} ({', '.join(name for name, *_ in _FIELDS)})"
    if (fields[2] == "?") == (fields[4] == "?"):
        return "allowed: '?' in exactly one of day of month and day of week"
    errors = (_field_error(field, *rule) for field, rule in zip(fields, _FIELDS, strict=True))
    return next((error for error in errors if error), None)


def _field_error(field: str, name: str, low: int, high: int, names: tuple[str, ...]) -> str | None:
    parts = [_numbered(part, names) for part in field.split(",")]
    if all(_part_fits(part, name, low, high) for part in parts):
        return None
    return f"has {field!r} for {name}; allowed: {low}-{high}, '*', lists (1,2), ranges (1-5) and steps (0/15)"


def _numbered(part: str, names: tuple[str, ...]) -> str:
    return re.sub(r"[A-Za-z]{3}", lambda word: _number(word[0], names), part)


def _number(word: str, names: tuple[str, ...]) -> str:
    return str(names.index(word.upper()) + 1) if word.upper() in names else word


def _part_fits(part: str, name: str, low: int, high: int) -> bool:
    if part in ("*", "?"):
        return part == "*" or name.startswith("day")
    if name == "day of month" and part in ("L", "LW"):
        return True
    if name == "day of month" and part.endswith("W"):
        part = part[:-1]
    if name == "day of week" and re.fullmatch(r"[1-7](L|#[1-5])|L", part):
        return True
    match = re.fullmatch(r"(?:\*|([0-9]{1,4})(?:-([0-9]{1,4}))?)(?:/([1-9][0-9]{0,3}))?", part)
    if not match:
        return False
    numbers = [int(number) for number in match.groups()[:2] if number]
    return all(low <= number <= high for number in numbers) and all(a <= b for a, b in pairwise(numbers))
