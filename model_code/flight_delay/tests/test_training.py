"""Training writes what serving needs, the same each time, or says why it cannot."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from model_code.flight_delay import train as training

from .conftest import flights, train

Spoil = Callable[[pd.DataFrame], pd.DataFrame]


def test_it_writes_model_encoding_and_metrics(model_dir: Path) -> None:
    metrics = json.loads((model_dir / "metrics.json").read_text())
    assert {"train_auc", "train_log_loss", "train_rows"} == set(metrics)
    assert metrics["train_auc"] > 0.95
    assert {path.name for path in model_dir.iterdir()} == {"model.ubj", "encoding.json", "metrics.json"}


def test_the_order_in_which_rows_arrive_does_not_change_the_model(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = train(flights().sample(frac=1, random_state=1), tmp_path)
    assert (again / "model.ubj").read_bytes() == (model_dir / "model.ubj").read_bytes()
    assert re.fullmatch(r"(train_\w+=[0-9.]+;\n){3}", capsys.readouterr().out)


def test_channel_and_model_directory_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SM_MODEL_DIR", raising=False)
    monkeypatch.setenv("SM_CHANNEL_TRAIN", str(tmp_path))
    with pytest.raises(SystemExit):
        training.main([])
    assert "--model_dir or its SM_* environment variable is required" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "arguments", "reason"),
    [
        (lambda rows: rows.assign(late=0), (), "same outcome"),
        (lambda rows: rows.head(0), (), "No training rows"),
        (lambda rows: rows.assign(visib=np.where(rows.index == 3, np.inf, rows.visib)), (), "inf"),
        (lambda rows: rows.drop(columns="dest"), (), "dest"),
        (lambda rows: rows, ("--max_dept_h", "3"), "unrecognized arguments"),
        (lambda rows: rows, ("--eta", "nan"), "make it diverge"),
    ],
)
def test_it_fails_and_says_why(
    spoil: Spoil, arguments: tuple[str, ...], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((Exception, SystemExit)) as failure:
        train(spoil(flights()), tmp_path, *arguments)
    assert reason in str(failure.value) + capsys.readouterr().err
    assert not (tmp_path / "model" / "metrics.json").exists()
