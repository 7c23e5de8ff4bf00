"""What the raw hourly counts must keep; a broken rule stops the run before training."""

from __future__ import annotations

from model_code.bike_demand.encoding import READINGS, SKIES
from model_code.shared.quality import Rule

KEY = ("dt", "hr")

COLUMNS = {
    "day": "int",
    "hr": "int",
    "holiday": "int",
    "weekday": "int",
    "workingday": "int",
    "weathersit": "string",
    **dict.fromkeys(READINGS, "double"),
    "casual": "int",
    "registered": "int",
    "bikers": "int",
}

RULES = (
    Rule("missing_value", " or ".join(f"{name} is null" for name in ("hr", "holiday", "weathersit", "bikers"))),
    Rule("wrong_day", "dayofyear(dt) is distinct from day or dayofweek(dt) - 1 is distinct from weekday"),
    Rule("impossible_hour", "hr not between 0 and 23"),
    # What the model derives at serving must be what the data calls a working day.
    Rule("wrong_working_day", "workingday is distinct from cast(weekday between 1 and 5 and holiday = 0 as int)"),
    Rule("impossible_reading", " or ".join(f"{name} not between 0 and 1" for name in READINGS), at_most=0.01),
    Rule("unknown_sky", f"weathersit not in {SKIES}"),
    Rule("impossible_count", "bikers < 0 or bikers > 5000"),
    Rule("count_does_not_add_up", "casual + registered is distinct from bikers"),
)
MISSING_HOURS = 0.1  # the feed leaves out hours in which nobody rode, mostly at night; more is an outage
