"""A model trained by train.py on a few weeks of made-up hours."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

from model_code.bike_demand import inference
from model_code.bike_demand import train as training

ROOT = Path(__file__).resolve().parents[3]


def hours(days: int = 28, seed: int = 0) -> pd.DataFrame:
    """Commuters ride at 8 and 17 on working days, strollers at noon on the others; rain halves both."""
    random = np.random.default_rng(seed)
    when = [(date(2011, 3, 7) + timedelta(days=day), hr) for day in range(days) for hr in range(24)]
    frame = pd.DataFrame(
        {
            "date": [day.isoformat() for day, _ in when],
            "hr": [hr for _, hr in when],
            "holiday": 0,
            "weathersit": random.choice(["clear", "cloudy/misty", "light rain/snow"], len(when)),
            "temp": random.uniform(0.2, 0.6, len(when)),
            "atemp": 0.4,
            "hum": 0.6,
            "windspeed": np.where(random.random(len(when)) < 0.1, np.nan, 0.2),
        }
    )
    working = np.array([day.weekday() < 5 for day, _ in when])
    peak = np.where(working, frame["hr"].isin([8, 17]), frame["hr"].isin([11, 12, 13]))
    dry = frame["weathersit"] != "light rain/snow"
    frame["bikers"] = random.poisson(np.where(peak, 200, 20) * np.where(dry, 1.0, 0.5))
    return frame


def train(rows: pd.DataFrame, folder: Path, *arguments: str) -> Path:
    """Run train.py's main as the training job does: channel and model directory, hyperparameters; the latter folder."""
    channel, model_dir = folder / "train", folder / "model"
    channel.mkdir(parents=True)
    model_dir.mkdir()
    rows.to_parquet(channel / "part-0.parquet")
    training.main(["--train", str(channel), "--model_dir", str(model_dir), "--num_round", "60", *arguments])
    return model_dir


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(hours(), tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def model(model_dir: Path) -> xgb.Booster:
    return inference.model_fn(str(model_dir))
