"""How long a feature job takes: Spark with Java's archive of its classes, against Spark without."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rehearsal import spark
from rehearsal.environments import interpreter, scrubbed
from rehearsal.glue_run import STANDIN

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "model_code" / "flight_delay"
THROUGH = "2013-01-12"
RUNS = 3


def measure() -> Iterator[tuple[str, str, float]]:
    """Without and with, one after the other, since a busy machine slows down both."""
    with tempfile.TemporaryDirectory(prefix="pushline-bench-") as name:
        raw = Path(name) / "raw"
        sample = [sys.executable, str(MODEL / "sample_data.py"), "--output", str(raw), "--through", THROUGH]
        subprocess.run(sample, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        spark.class_archive()
        took: dict[bool, list[float]] = {False: [], True: []}
        for run in range(RUNS):
            for archived, seconds in took.items():
                seconds.append(_seconds(Path(name) / f"{run}-{archived}", raw, archived=archived))
    floor = statistics.median(took[False])
    for archived, what in ((False, "12 days of flights, no archive"), (True, "the same, Java's archive of classes")):
        median = statistics.median(took[archived])
        yield what, f"{median:.2f} s", median / floor


def _seconds(folder: Path, raw: Path, *, archived: bool) -> float:
    given = {"JOB_NAME": "bench", "raw": f"{raw}/", "output": f"{folder}/features/", "as_of": THROUGH,
             "window_days": "10", "holdout_days": "3"}  # fmt: skip
    arguments = [part for name, value in given.items() for part in (f"--{name}", value)]
    variables = {**spark.variables(folder, {"spark.sql.shuffle.partitions": "8"}, archived=archived),
                 "PYTHONPATH": os.pathsep.join((str(STANDIN), str(ROOT)))}  # fmt: skip
    began = time.perf_counter()
    command = [str(interpreter(spark.IMAGE)), str(MODEL / "features.py"), *arguments]
    subprocess.run(command, check=True, env=scrubbed(**variables), capture_output=True)
    return time.perf_counter() - began
