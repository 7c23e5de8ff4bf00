"""How much of a synth is ours: the app against the smallest possible CDK app."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUNS = 3
SMALLEST = """
import sys
import aws_cdk as cdk
from aws_cdk import aws_sns as sns
app = cdk.App(outdir=sys.argv[1], analytics_reporting=False)
sns.Topic(cdk.Stack(app, "Smallest"), "Topic")
app.synth()
"""


def measure() -> Iterator[tuple[str, str, float]]:
    """Rows for the floor (one stack, one resource) and for `python app.py`; ratio = app / floor."""
    with tempfile.TemporaryDirectory() as out:
        floor = _median([sys.executable, "-c", SMALLEST, out])
        yield "smallest CDK app (floor)", f"{floor:.1f} s", 1.0
        ours = _median([sys.executable, "app.py"], out)
        yield "python app.py", f"{ours:.1f} s", ours / floor


def _median(command: list[str], out: str | None = None) -> float:
    environment = {**os.environ, **({"CDK_OUTDIR": out} if out else {})}
    seconds = []
    for _ in range(RUNS):
        began = time.monotonic()
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        seconds.append(time.monotonic() - began)
    return statistics.median(seconds)
