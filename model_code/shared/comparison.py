"""The frame of an evaluation: challenger and champion scored on the same holdout -> evaluation.json and plots.

Each model is scored by its own code, the one packed beside it, in a process of its own: a champion may have been
trained by code that the challenger's commit has changed.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

ENTRY = Path("code") / "pushline_entry.py"

Scores = npt.NDArray[np.float64]
Metrics = dict[str, float]


@dataclass(frozen=True)
class Task:
    """What a model predicts, and how well it did.

    `comparable` says what is wrong with the holdout's labels, if something is; `possible` says of each score whether
    it can be one of the `scores_are`; `draw` writes plots of rows, scores and model directories into a folder.
    """

    label: str
    scores_are: str
    comparable: Callable[[Scores], str | None]
    possible: Callable[[Scores], npt.NDArray[np.bool_]]
    measure: Callable[[Scores, Scores], Metrics]
    draw: Callable[[Path, pd.DataFrame, Mapping[str, Scores], Mapping[str, Path]], None]


def compare(task: Task, arguments: Sequence[str] | None) -> None:
    """Compare the models in `--challenger` and `--champion` on `--holdout`."""
    given = _options(arguments)
    rows = pd.read_parquet(given.holdout)
    labels = rows[task.label].to_numpy()
    if wrong := task.comparable(labels):
        raise SystemExit(f"{wrong}: nothing can be compared")
    models = {"challenger": given.challenger} | ({"champion": given.champion} if given.champion else {})
    with ThreadPoolExecutor() as pool:  # the work is in the models' own processes
        scores = dict(zip(models, pool.map(lambda name: _score(task, name, models[name], rows), models), strict=True))
    metrics = {name: _finite(name, task.measure(labels, values)) for name, values in scores.items()}
    given.output.mkdir(parents=True, exist_ok=True)
    _report(given.output, len(rows), metrics)
    task.draw(given.output, rows, scores, models)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--challenger", type=Path, required=True)
    parser.add_argument("--champion", type=Path)
    parser.add_argument("--holdout", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args(arguments)


def _score(task: Task, name: str, model: Path, rows: pd.DataFrame) -> Scores:
    """The scores that the code packed with the model gives these rows."""
    if not (model / ENTRY).is_file():
        raise SystemExit(f"The {name} in {model} lacks {ENTRY}: it was not trained by this platform")
    with tempfile.TemporaryDirectory() as folder:
        data, scored = Path(folder, "data"), Path(folder, "scores.parquet")
        data.mkdir()
        rows.to_parquet(data / "holdout.parquet")  # one file, so that the order of the scores is beyond doubt
        finished = subprocess.run(
            [sys.executable, model / ENTRY, "score", "--model", model, "--data", data, "--output", scored], check=False
        )
        if finished.returncode:
            raise SystemExit(f"The {name}'s own code could not score the holdout: exit code {finished.returncode}")
        return _usable(task, name, pd.read_parquet(scored)["prediction"].to_numpy(dtype=np.float64), len(rows))


def _usable(task: Task, name: str, scores: Scores, rows: int) -> Scores:
    if len(scores) != rows:
        raise SystemExit(f"The {name} scored {len(scores)} of the holdout's {rows} rows")
    if outside := int(np.sum(~task.possible(scores))):
        raise SystemExit(f"{outside} of the {name}'s {rows} scores are not {task.scores_are}")
    return scores


def _finite(name: str, metrics: Metrics) -> Metrics:
    if not all(map(math.isfinite, metrics.values())):
        raise SystemExit(f"The {name}'s metrics are unusable: {metrics}")
    return metrics


def _report(output: Path, rows: int, metrics: Mapping[str, Metrics]) -> None:
    report = {"rows": rows, "challenger": metrics["challenger"], "champion": metrics.get("champion")}
    (output / "evaluation.json").write_text(json.dumps(report, indent=1))
    for name, values in metrics.items():
        print(" ".join(f"{name}_{metric}={value};" for metric, value in values.items()), flush=True)
