"""A step's requests and labels: what the model's own features make of the step's days, before they are in the lake."""

from __future__ import annotations

import csv
import datetime as dt
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from ruamel.yaml import YAML

from rehearsal import spark
from rehearsal.environments import interpreter, scrubbed
from rehearsal.glue_run import STANDIN
from rehearsal.replay.plan import Refused, Step

HOLDOUT_DAYS = "holdout_days"
"""The argument by which a model's features tell how many of the newest days they hold out."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Labelled:
    """Requests of a step, and what became of each."""

    requests: list[Row]
    labels: list[float]


@dataclass(frozen=True)
class ModelFolder:
    """What a replay reads of a model's folder: how features are made, what a request holds and what is measured."""

    repository: Path
    name: str
    features: str
    arguments: dict[str, str]
    metric: str
    maximize: bool
    label: str
    fields: frozenset[str]

    @property
    def path(self) -> Path:
        return self.repository / "model_code" / self.name


def read_folder(repository: Path, name: str) -> ModelFolder:
    """The folder of the model in a checkout; Refused if it has nothing to replay with."""
    folder = repository / "model_code" / name
    if not (folder / "model.yaml").is_file():
        raise Refused(f"{folder} has no model.yaml; a replay takes a model of this repository")
    given = YAML(typ="safe").load(folder / "model.yaml")
    features, evaluation = given.get("features") or {}, given["evaluation"]
    return ModelFolder(
        repository.resolve(),
        name,
        features.get("script", "features.py"),
        {key: str(value) for key, value in (features.get("arguments") or {}).items()},
        evaluation["metric"],
        evaluation.get("goal", "maximize") == "maximize",
        evaluation.get("label", "label"),
        _fields(folder / "tests"),
    )


def write_raw(folder: ModelFolder, output: Path, through: dt.date) -> None:
    """The model's sample data up to a day, as `dt=…` folders; what is there already stays."""
    if (output / "complete").is_file() and (output / "complete").read_text() >= through.isoformat():
        return
    script = folder.path / "sample_data.py"
    if not script.is_file():
        raise Refused(f"{script} is missing: a replay lets sample data arrive")
    command = [sys.executable, str(script), "--output", str(output), "--through", through.isoformat()]
    _run(command, "sample_data.py", folder, {"PYTHONPATH": str(folder.repository)})
    (output / "complete").write_text(through.isoformat())


def labelled(folder: ModelFolder, raw: Path, step: Step, work: Path) -> Labelled:
    """Run the feature script as of the step's last day over what had landed by then, and take what it holds out."""
    shutil.rmtree(work, ignore_errors=True)
    landed, output = work / "raw", work / "features"
    for day in days(raw):
        if day <= step.through:
            shutil.copytree(raw / f"dt={day}", landed / f"dt={day}", copy_function=os.link)
    given = {"JOB_NAME": f"{folder.name}-replay", "raw": f"{landed}/", "output": f"{output}/"}
    given |= {"as_of": step.through.isoformat(), **folder.arguments}
    if HOLDOUT_DAYS in folder.arguments:
        given[HOLDOUT_DAYS] = str(step.days)
    arguments = [part for name, value in given.items() for part in (f"--{name}", value)]
    # Made ahead it runs beside the cloud's own jobs, which are what is waited for.
    command = ["nice", str(interpreter(spark.IMAGE)), str(folder.path / folder.features), *arguments]
    modules = os.pathsep.join((str(STANDIN), str(folder.repository)))
    variables = {**spark.variables(work, {"spark.sql.shuffle.partitions": "2"}), "PYTHONPATH": modules}
    _run(command, folder.features, folder, variables)
    found = _read(folder, output / "holdout")
    shutil.rmtree(work)
    return found


def days(raw: Path) -> list[dt.date]:
    return sorted(dt.date.fromisoformat(path.name.removeprefix("dt=")) for path in raw.glob("dt=*"))


def _read(folder: ModelFolder, holdout: Path) -> Labelled:
    files = sorted(holdout.rglob("*.parquet")) if holdout.is_dir() else []
    rows = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
    if not rows:
        raise Refused(f"{folder.features} held out no rows; there is nothing to ask the endpoint")
    if folder.label not in rows[0]:
        raise Refused(f"{folder.features} wrote no column {folder.label!r}, the label that model.yaml names")
    requests = [{name: _plain(value) for name, value in row.items() if name in folder.fields} for row in rows]
    return Labelled(requests, [float(row[folder.label]) for row in rows])


def _plain(value: Any) -> Any:
    """As JSON has it: a day as text, what is missing as null."""
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _fields(tests: Path) -> frozenset[str]:
    """The fields of a request, by the sample request: JSON rows or a CSV header."""
    if (tests / "sample_request.json").is_file():
        document = json.loads((tests / "sample_request.json").read_text())
        rows = document.get("instances", [document]) if isinstance(document, dict) else document
        if rows and all(isinstance(row, dict) for row in rows):
            return frozenset(name for row in rows for name in row)
    if (tests / "sample_request.csv").is_file():
        with (tests / "sample_request.csv").open(newline="") as lines:
            return frozenset(next(csv.reader(lines), []))
    raise Refused(f"{tests} has no sample_request.json of named fields and no sample_request.csv with a header")


def _run(command: list[str], what: str, folder: ModelFolder, variables: dict[str, str]) -> None:
    finished = subprocess.run(
        command, cwd=folder.repository, env=scrubbed(**variables), capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise Refused(f"{what} of {folder.name} failed:\n{finished.stderr.strip()[-2000:]}")
