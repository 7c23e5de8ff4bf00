"""`./pushline bench [NAME …]`: run the benchmarks and print one table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from bench import door, routing, serving, spark, synth


@dataclass(frozen=True)
class Benchmark:
    """`measure` yields rows of (what, figure with unit, ratio against the first row)."""

    title: str
    measure: Callable[[], Iterator[tuple[str, str, float]]]


BENCHMARKS = {
    "synth": Benchmark("Synthesis, seconds (median of 3)", synth.measure),
    "routing": Benchmark("Routing a push: 1,000 files over 200 models (median of 5)", routing.measure),
    "door": Benchmark(
        "start_retraining for a push: 1,000 files, 200 models, AWS answering after 20 ms (median of 3)", door.measure
    ),
    "spark": Benchmark("A feature job, start to end (median of 3, in turn)", spark.measure),
    "serving": Benchmark(
        "Serving one row, requests/s and p99 (xgboost, 100 trees, 17 features, one worker)", serving.measure
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="./pushline bench", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"which: {', '.join(BENCHMARKS)} (default: all)")
    names = parser.parse_args().name or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there is {', '.join(BENCHMARKS)}")
    console = Console()
    for benchmark in map(BENCHMARKS.__getitem__, names):
        table = Table("what", "measured", "ratio", title=benchmark.title, title_justify="left")
        with console.status(benchmark.title):
            for what, figure, ratio in benchmark.measure():
                table.add_row(what, figure, f"{ratio:.2f}")
        console.print(table)


if __name__ == "__main__":
    main()
