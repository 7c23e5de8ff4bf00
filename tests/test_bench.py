"""`./pushline bench`, by the benchmarks that take no more than some seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT


def bench(*names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *names]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)


def test_a_benchmark_prints_ratios_against_its_floor() -> None:
    done = bench("routing")
    assert done.returncode == 0, done.stderr
    assert "Routing a push" in done.stdout
    assert "floor" in done.stdout
    assert "1.0" in done.stdout


def test_the_door_is_measured_with_its_calls() -> None:
    done = bench("door")
    assert done.returncode == 0, done.stderr
    assert "a push that concerns one model" in done.stdout
    assert "a push that concerns all 200" in done.stdout


@pytest.mark.parametrize("wrong", [["rooting"], ["routing", "synths"]])
def test_an_unknown_benchmark_is_told_with_those_there_are(wrong: list[str]) -> None:
    done = bench(*wrong)
    assert done.returncode == 2
    assert f"no benchmark is called {wrong[-1]}" in done.stderr
    assert "routing" in done.stderr
