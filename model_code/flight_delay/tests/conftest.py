"""A model trained by train.py on a few hundred made-up flights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from model_code.flight_delay import inference
from model_code.flight_delay import train as training

ROOT = Path(__file__).resolve().parents[3]


def flights(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    """Evening flights in poor visibility are late; everything else is noise."""
    random = np.random.default_rng(seed)
    hours, visib = random.integers(6, 23, rows), random.choice([10.0, 1.0], rows)
    frame = pd.DataFrame(
        {
            "flight": np.arange(rows),
            "flight_date": [f"2013-02-{day:02}" for day in random.integers(1, 29, rows)],
            "sched_dep_time": hours * 100 + 30,
            "carrier": random.choice(["AA", "UA"], rows),
            "origin": random.choice(["JFK", "LGA", "EWR"], rows),
            "dest": random.choice(["LAX", "IAH", "ORD"], rows),
            "distance": random.integers(200, 2500, rows),
            "plane_year": random.choice([1990.0, 2005.0, np.nan], rows),
            "engine": random.choice(np.array(["Turbo-fan", "Turbo-jet", None]), rows),
            "seats": 150.0,
            "temp": 40.0,
            "dewp": 30.0,
            "humid": 60.0,
            "wind_dir": 200.0,
            "wind_speed": 10.0,
            "wind_gust": np.nan,
            "precip": 0.0,
            "pressure": 1015.0,
            "visib": visib,
        }
    )
    frame["late"] = ((hours > 15) & (visib < 5)).astype("int32")
    return frame


def train(rows: pd.DataFrame, folder: Path, *arguments: str) -> Path:
    """Run train.py's main as the training job does: channel and model directory, hyperparameters; the latter folder."""
    channel, model_dir = folder / "train", folder / "model"
    channel.mkdir(parents=True)
    model_dir.mkdir()
    rows.to_parquet(channel / "part-0.parquet")
    training.main(["--train", str(channel), "--model_dir", str(model_dir), "--num_round", "20", *arguments])
    return model_dir


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(flights(), tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def model(model_dir: Path) -> inference.Model:
    return inference.model_fn(str(model_dir))
