"""The sample data lands as the lake would hold it."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import pandas as pd

from model_code.flight_delay import sample_data


def test_each_day_lands_in_its_own_folder_and_planes_with_the_first(landed: Path) -> None:
    assert sorted(path.name for path in landed.iterdir()) == [f"dt=2013-01-{day:02}" for day in range(1, 13)]
    assert [path.parent.name for path in landed.rglob("planes.parquet")] == ["dt=2013-01-01"]
    assert len(list(landed.rglob("flights.parquet"))) == len(list(landed.rglob("weather.parquet"))) == 12


def test_a_day_is_a_day_in_new_york_and_its_hours_are_utc(landed: Path) -> None:
    for name in ("flights", "weather"):
        rows = pd.read_parquet(landed / "dt=2013-01-05" / f"{name}.parquet")
        local = rows["time_hour"].dt.tz_convert("America/New_York")
        assert (local.dt.strftime("%Y-%m-%d") == "2013-01-05").all()
        assert (local.dt.hour == rows["hour"]).all()


def test_later_days_are_added_alone_and_are_the_same_bytes(landed: Path, tmp_path: Path) -> None:
    assert len(sample_data.write(tmp_path, since=date(2013, 1, 11), through=date(2013, 1, 12))) == 2
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.parquet"))
    assert len(files) == 4
    assert all((tmp_path / file).read_bytes() == (landed / file).read_bytes() for file in files)


def test_it_runs_as_a_program(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "model_code.flight_delay.sample_data",
        "--output",
        str(tmp_path / "raw"),
        "--since",
        "2013-12-31",
        "--through",
        "2026-01-01",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.startswith("1 days written")
