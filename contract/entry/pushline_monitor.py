"""Watches a live model: have requests or answers moved, and how good is it on labels that landed since?

    --model DIR --baseline DIR --captured DIR --quality DIR --reference JSON --output DIR

Writes report.json, whose `metrics` the state machine hands to CloudWatch, and plots. What can't be measured, for want
of a week of requests or of labels, is left out and said in `notes`: a metric that is missing raises no alarm. A week
outlives the versions that answered it, so the live version predicts all of its requests anew.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pushline_captured import (  # type: ignore[import-not-found]  # beside it in the bundle
    Captured,
    of_the_same_columns,
    predicted,
    read_captured,
)
from pushline_drift import (  # type: ignore[import-not-found]
    MINIMUM_ROWS,
    against_periods,
    column_drift,
    importance,
    is_date,
    periods_of,
)
from pushline_entry import ContractBroken, Live  # type: ignore[import-not-found]
from pushline_span import Week, week_of  # type: ignore[import-not-found]

PERIOD = "period"
_PERIOD_FOLDER = re.compile(rf"{PERIOD}=([^/]+)")

Report = dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    """Write report.json and plots."""
    options = _options(arguments)
    live = Live(options.model)
    baseline, periods = _baseline(options.baseline)
    captured = read_captured(options.captured, live.read)
    report: Report = {"model": live.manifest["model"], "rows": {"baseline": len(baseline)}, "metrics": {}, "notes": []}
    options.output.mkdir(parents=True, exist_ok=True)
    _watch_requests(report, live, baseline, periods, captured, options.output)
    _watch_quality(report, live.manifest, options.quality, json.loads(options.reference))
    (options.output / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    for name, value in report["metrics"].items():
        print(f"{name}={value:.4f};")
    print("\n".join(report["notes"]), flush=True)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pushline_monitor", allow_abbrev=False)
    for name in ("model", "baseline", "captured", "quality", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--reference", default="{}", help="the live model's metrics when it was judged, as JSON")
    return parser.parse_args(arguments)


def _baseline(folder: Path) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """The training rows, and the period each belongs to, by the folders `period=…` they are in."""
    files = sorted(path for path in folder.rglob("*.parquet") if path.is_file())
    if not files:
        raise ContractBroken(f"there are no parquet files in {folder}")
    frames = [pd.read_parquet(file).assign(**{PERIOD: _period(file)}) for file in files]
    rows = pd.concat(frames, ignore_index=True)
    return rows.drop(columns=PERIOD), rows[PERIOD]


def _period(file: Path) -> str | None:
    found = _PERIOD_FOLDER.search(file.as_posix())
    return found[1] if found else None


# Requests and answers


def _watch_requests(report: Report, live: Any, baseline: pd.DataFrame, period: pd.Series[Any], captured: Captured,
                    output: Path) -> None:  # fmt: skip
    captured = _readable(report, captured, baseline)
    found, periods = captured.rows, periods_of(period)
    report["rows"]["captured"], report["periods"] = len(found), len(periods)
    if not periods:
        report["notes"].append("the baseline has no folders period=…: distances are compared with the customary 0.25")
    week = week_of(found, captured.moments, baseline, period) if len(found) else Week(None, "no requests were captured")
    if week.rows is None:
        report["notes"].append(week.said)
        return
    report["rows"]["measured"], report["week"] = int(week.rows.sum()), week.said
    if week.rows.sum() < MINIMUM_ROWS:
        report["notes"].append(f"{week.rows.sum()} rows are of a week; drift is measured from {MINIMUM_ROWS} on")
        return
    _watch_features(report, live, baseline, periods, found[week.rows])
    _watch_predictions(
        report, live, baseline, periods, np.asarray(predicted(captured, live.predict))[week.rows], output
    )
    _plot_features(report["features"], output)


def _readable(report: Report, captured: Captured, baseline: pd.DataFrame) -> Captured:
    """The requests that the live version can be asked; what is left out is said."""
    alike = of_the_same_columns(captured, map(str, baseline.columns))
    others = len(captured.requests) - len(alike.requests)
    report["requests"] = {"read": len(alike.requests), "unreadable": len(captured.unreadable), "other_columns": others}
    if others:
        report["notes"].append(f"{others} requests are of days without columns that requests have now: left out")
    if captured.unreadable:
        report["notes"].append(f"{len(captured.unreadable)} requests can't be read: {captured.unreadable[0][:300]}")
    if captured.unreadable and not alike.requests:
        raise ContractBroken(f"none of the captured requests can be read: {captured.unreadable[0][:500]}")
    return alike


def _watch_features(report: Report, live: Any, baseline: pd.DataFrame, periods: list[Any], found: pd.DataFrame) -> None:
    label = live.manifest["label"]
    shared = [name for name in baseline if name != label and name in found and not is_date(baseline[name])]
    if not shared:
        raise ContractBroken("the captured requests share no column with the baseline that features.py wrote")
    weights = importance(baseline, shared, live.predict)
    measured = [column_drift(baseline[name], found[name], periods) for name in shared]
    distance = float(sum(weight * each for weight, (each, _) in zip(weights, measured, strict=True)))
    between = sum(weight * weeks for weight, (_, weeks) in zip(weights, measured, strict=True))
    drift = against_periods(distance, np.asarray(between))
    report["metrics"]["FeatureDrift"] = drift.ratio
    report["drift"] = {"distance": drift.distance, "spread": drift.spread}
    report["features"] = sorted(
        ({"name": name, "importance": float(weight), "distance": each,
          "spread": float(weeks.max()) if len(weeks) else None}
         for name, weight, (each, weeks) in zip(shared, weights, measured, strict=True)),
        key=lambda row: -row["importance"] * row["distance"])  # fmt: skip


def _watch_predictions(report: Report, live: Any, baseline: pd.DataFrame, periods: list[Any], answered: Any,
                       output: Path) -> None:  # fmt: skip
    expected, found = pd.Series(live.predict(baseline), dtype=float), pd.Series(answered, dtype=float)
    drift = against_periods(*column_drift(expected, found, periods))
    report["metrics"]["PredictionDrift"] = drift.ratio
    report["predictions"] = {"distance": drift.distance, "spread": drift.spread,
                             "mean": {"baseline": float(expected.mean()), "captured": float(found.mean())}}  # fmt: skip
    _plot_predictions(expected, found, output)


# Quality


def _watch_quality(report: Report, manifest: dict[str, Any], folder: Path, reference: dict[str, Any]) -> None:
    """How much of its metric the model lost, as a part of what it had when it was judged."""
    file, metric = folder / "evaluation.json", manifest["metric"]
    if not file.is_file():
        report["notes"].append("no labels have landed since the live version was trained")
        return
    evaluation = json.loads(file.read_text(encoding="utf-8"))
    now, before = evaluation["challenger"][metric], reference.get(metric)
    report["rows"]["labelled"] = evaluation["rows"]
    report["quality"] = {"metric": metric, "now": now, "reference": before, "all": evaluation["challenger"]}
    report["metrics"]["Quality"] = now
    if not isinstance(before, int | float) or not math.isfinite(before) or not before:
        report["notes"].append(f"the live version was registered without a usable {metric}")
        return
    worse = before - now if manifest["goal"] == "maximize" else now - before
    report["metrics"]["QualityLoss"] = worse / abs(before)


# Plots


def _plot_features(features: list[dict[str, Any]], output: Path) -> None:
    figure, axes = _axes()
    shown = features[:15][::-1]
    axes.barh([row["name"] for row in shown], [row["importance"] * row["distance"] for row in shown],
              label="requests", color="tab:orange")  # fmt: skip
    axes.barh([row["name"] for row in shown], [row["importance"] * (row["spread"] or 0) for row in shown],
              label="strangest week of training", fill=False, edgecolor="black")  # fmt: skip
    axes.set(xlabel="distance from the training rows x importance to the model")
    axes.legend()
    _save(figure, output / "features.png")


def _plot_predictions(expected: pd.Series[Any], found: pd.Series[Any], output: Path) -> None:
    figure, axes = _axes()
    edges = np.histogram_bin_edges(pd.concat([expected, found]), bins=40)
    for name, values in (("training rows", expected), ("answers", found)):
        axes.hist(values, bins=edges.tolist(), density=True, histtype="step", label=name)
    axes.set(xlabel="prediction", ylabel="density")
    axes.legend()
    _save(figure, output / "predictions.png")


def _axes() -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(7, 5))


def _save(figure: Any, file: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(file, dpi=100, bbox_inches="tight")
    pyplot.close(figure)


if __name__ == "__main__":
    main()
