"""New data is looked at when it has settled: windows of time, each with a one-time schedule for all that arrives in it.

A schedule of a fixed name would lose what arrives between its firing and its deletion; one per window can't, since it
fires a whole window after the last arrival that it stands for.
"""

from __future__ import annotations

import datetime as dt

from lambdas.start_retraining.decide import Defer, Ignore, Limits, last_day, shown, stamp
from lambdas.start_retraining.events import Arrival, Settled


def gather(arrival: Arrival, limits: Limits, now: dt.datetime) -> Defer | Ignore:
    """All arrivals of a window are one: it fires when the window is over and has settled."""
    if arrival.day > last_day(now):
        return Ignore(arrival.model, "data", f"day {arrival.day} lies in the future")
    end = _window_end(now, limits)
    until = end + limits.settling
    reason = f"new data {arrival.day}; waits until {shown(until)}: for the data to settle"
    return Defer(arrival.model, "data", reason, until, window_name(arrival.model, end))


def later_windows(settled: Settled, limits: Limits, now: dt.datetime) -> list[dt.datetime]:
    """The ends of the windows in which data may have gone on arriving; none where it has waited long enough.

    Where data never stops arriving there is always a later window, so every `longest_wait` one does not look for it.
    """
    windows = max(1, int(limits.longest_wait / limits.settling))
    if int(settled.window.timestamp() / limits.settling.total_seconds()) % windows == 0:
        return []
    found: list[dt.datetime] = []
    last, end = _window_end(max(now, settled.due), limits), settled.window + limits.settling
    while end <= last and len(found) < windows:
        found.append(end)
        end += limits.settling
    return found


def window_name(model: str, end: dt.datetime) -> str:
    """The one-time schedule of a window of arrivals."""
    return f"{model.replace('_', '-')}-settled-{stamp(end)}"


def _window_end(now: dt.datetime, limits: Limits) -> dt.datetime:
    length = limits.settling.total_seconds()
    return dt.datetime.fromtimestamp((now.timestamp() // length + 1) * length, dt.UTC)
