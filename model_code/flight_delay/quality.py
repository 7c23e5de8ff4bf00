"""What the raw flights, weather and planes must keep; a broken rule stops the run before training."""

from __future__ import annotations

from model_code.shared.quality import Rule

KEY = ("dt", "carrier", "flight", "origin", "dest", "sched_dep_time")

COLUMNS = {
    "flights": {
        "year": "int",
        "month": "int",
        "day": "int",
        "carrier": "string",
        "flight": "int",
        "tailnum": "string",
        "origin": "string",
        "dest": "string",
        "distance": "double",
        "sched_dep_time": "int",
        "arr_delay": "double",
        "time_hour": "timestamp",
    },
    "weather": {
        "origin": "string",
        "time_hour": "timestamp",
        "temp": "double",
        "dewp": "double",
        "humid": "double",
        "wind_dir": "double",
        "wind_speed": "double",
        "wind_gust": "double",
        "precip": "double",
        "pressure": "double",
        "visib": "double",
    },
    "planes": {"tailnum": "string", "year": "int", "engine": "string", "seats": "int"},
}
# A calm day has no gusts, and pressure is often not reported; any other column has values every day.
FILLED_WEATHER = tuple(name for name in COLUMNS["weather"] if name not in ("wind_gust", "pressure"))

FLIGHT_RULES = (
    Rule(
        "missing_schedule",
        " or ".join(
            f"{name} is null"
            for name in ("carrier", "flight", "origin", "dest", "distance", "sched_dep_time", "time_hour")
        ),
    ),
    Rule("wrong_day", "make_date(year, month, day) is distinct from dt"),
    Rule("impossible_departure", "sched_dep_time < 0 or sched_dep_time > 2400 or sched_dep_time % 100 > 59"),
    Rule("impossible_distance", "distance <= 0 or distance > 12000"),
    Rule("impossible_delay", "arr_delay < -180 or arr_delay > 2880"),
    Rule("without_delay", "arr_delay is null", at_most=0.25),  # cancelled and diverted; a blizzard week has a fifth
    Rule("without_weather", "not has_weather", at_most=0.05),
    Rule("without_plane", "not has_plane", at_most=0.5),  # two large carriers report no tail numbers
)
IMPOSSIBLE_WEATHER = {
    "temp": (-60, 140),
    "dewp": (-80, 100),
    "humid": (0, 100),
    "wind_dir": (0, 360),
    "wind_speed": (0, 150),
    "wind_gust": (0, 200),
    "precip": (0, 20),
    "pressure": (850, 1100),
    "visib": (0, 100),
}
# One reading of a faulty gauge is dropped (1,048 miles an hour at Newark in February); many are a broken feed.
WEATHER_RULES = (
    Rule(
        "impossible_weather",
        " or ".join(f"{name} not between {low} and {high}" for name, (low, high) in IMPOSSIBLE_WEATHER.items()),
        at_most=0.01,
    ),
)
