"""Compares what production and its shadow variant answered to the same requests.

    --production DIR --shadow DIR --since TIME --measured JSON --output DIR

Two answers belong together when their requests were the same: SageMaker documents no id that both variants' captured
data share, and a model answers equal requests equally. Writes report.json and answers.png.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pushline_captured import (  # type: ignore[import-not-found]  # beside it in the bundle
    content,
    kind,
    lines_of,
    moment,
    predictions,
)

RELATIVE, ABSOLUTE = 1e-3, 1e-6
"""By how much a number may differ and still be the same: as in the reconciler's smoke test."""

Report = dict[str, Any]


@dataclass
class Answers:
    """What one variant answered, by request; `unreadable` says of what could not be read, why."""

    by_request: dict[tuple[str, str], list[Any]] = field(default_factory=lambda: defaultdict(list))
    requests: int = 0
    unreadable: list[str] = field(default_factory=list)


@dataclass
class Compared:
    """Requests that both variants answered, their numbers side by side, and answers that are no such numbers."""

    requests: int = 0
    production: list[float] = field(default_factory=list)
    shadow: list[float] = field(default_factory=list)
    differing_requests: int = 0
    other_shape: int = 0


def main(arguments: list[str] | None = None) -> None:
    """Write report.json, and a plot where there are numbers to plot."""
    options = _options(arguments)
    production, shadow = (answers(folder, options.since) for folder in (options.production, options.shadow))
    compared = compare(production, shadow)
    report = _report(production, shadow, compared, json.loads(options.measured))
    options.output.mkdir(parents=True, exist_ok=True)
    if compared.production:
        _plot(compared, options.output / "answers.png")
    (options.output / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(report["summary"], flush=True)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pushline_shadow", allow_abbrev=False)
    for name in ("production", "shadow", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--since", default="", help="what was captured before was another shadow's")
    parser.add_argument("--measured", default="{}", help="what CloudWatch measured of both variants, as JSON")
    return parser.parse_args(arguments)


def answers(folder: Path, since: str) -> Answers:
    """Every answer captured below `folder` since then."""
    found = Answers()
    for line in lines_of(folder):
        try:
            record = json.loads(line)
            if moment(record) < since:
                continue
            found.requests += 1
            captured = record["captureData"]
            asked, told = captured["endpointInput"], captured["endpointOutput"]
            found.by_request[kind(asked), content(asked)].append(_answer(told))
        except (KeyError, ValueError, TypeError) as error:
            found.unreadable.append(f"{type(error).__name__}: {error}")
    return found


def _answer(told: dict[str, Any]) -> list[float] | str:
    """The numbers of an answer, or its text."""
    try:
        return list(predictions(told)) or str(content(told))
    except (ValueError, TypeError, KeyError, IndexError):
        return str(content(told))


def compare(production: Answers, shadow: Answers) -> Compared:
    """Each of the shadow's answers beside one of production's to an equal request."""
    found = Compared()
    for request, answered in shadow.by_request.items():
        for ours, theirs in zip(production.by_request.get(request, []), answered, strict=False):
            found.requests += 1
            found.differing_requests += _compare_one(found, ours, theirs)
    return found


def _compare_one(found: Compared, ours: Any, theirs: Any) -> bool:
    if isinstance(ours, str) or isinstance(theirs, str) or len(ours) != len(theirs):
        found.other_shape += ours != theirs
        return bool(ours != theirs)
    found.production += ours
    found.shadow += theirs
    return bool(differs(np.asarray(ours), np.asarray(theirs)).any())


def differs(ours: Any, theirs: Any) -> Any:
    """Which numbers are not the same."""
    return np.abs(ours - theirs) > ABSOLUTE + RELATIVE * np.abs(ours)


# The report


def _report(production: Answers, shadow: Answers, compared: Compared, measured: Report) -> Report:
    numbers = _numbers(compared)
    percent = 100 * compared.differing_requests / compared.requests if compared.requests else 0.0
    report: Report = {
        "requests": {"production": production.requests, "shadow": shadow.requests, "compared": compared.requests,
                     "differing": compared.differing_requests, "other_shape": compared.other_shape},
        "answers": numbers,
        "measured": measured,
        "metrics": {"ShadowRequestsCompared": compared.requests, "ShadowAnswersDifferentPercent": percent},
        "notes": [f"{len(found.unreadable)} of {name}'s captured requests can't be read: {found.unreadable[0][:300]}"
                  for name, found in (("production", production), ("the shadow", shadow)) if found.unreadable],
    }  # fmt: skip
    if numbers:
        report["metrics"]["ShadowLargestDifference"] = numbers["largest_difference"]
    report["summary"] = _summary(report, percent)
    return report


def _numbers(compared: Compared) -> Report:
    if not compared.production:
        return {}
    ours, theirs = np.asarray(compared.production), np.asarray(compared.shadow)
    distance = np.abs(ours - theirs)
    return {
        "rows": len(ours), "different": int(differs(ours, theirs).sum()),
        "mean_difference": float(distance.mean()), "p95_difference": float(np.percentile(distance, 95)),
        "largest_difference": float(distance.max()),
        "mean": {"production": float(ours.mean()), "shadow": float(theirs.mean())},
    }  # fmt: skip


def _summary(report: Report, percent: float) -> str:
    """One line for people, which a model package's stage takes as its description."""
    requests, numbers = report["requests"], report["answers"]
    said = [f"Both answered {requests['compared']} of the same requests; {percent:.1f} % of the answers differ"]
    if numbers:
        said[0] += (
            f", by {numbers['mean_difference']:.4g} on average and {numbers['largest_difference']:.4g} at most"
            f" (mean answer {numbers['mean']['shadow']:.4g}, production's {numbers['mean']['production']:.4g})"
        )
    if requests["other_shape"]:
        said.append(f"{requests['other_shape']} have another shape")
    said += [_said(name, report["measured"][key]) for key, name in (("shadow", "shadow"), ("production", "production"))
             if report["measured"].get(key, {}).get("requests")]  # fmt: skip
    return "; ".join(said + report["notes"])[:900].replace("\n", " ")


def _said(name: str, measured: dict[str, float]) -> str:
    return (f"{name}: {measured['requests']:.0f} requests, {measured.get('errors', 0):.0f} failed, "
            f"p99 {measured.get('p99_ms', 0):.3g} ms")  # fmt: skip


def _plot(compared: Compared, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 6))
    axes.plot(compared.production, compared.shadow, ".", markersize=3, alpha=0.4)
    ends = [min(*compared.production, *compared.shadow), max(*compared.production, *compared.shadow)]
    axes.plot(ends, ends, color="grey", linewidth=0.8)
    axes.set(xlabel="production's answer", ylabel="the shadow's answer to the same request")
    figure.savefig(file, dpi=100, bbox_inches="tight")
    pyplot.close(figure)


if __name__ == "__main__":
    main()
