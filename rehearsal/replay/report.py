"""What a replay was worth: a table, a plot and a summary of the live model against the frozen first one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

Row = dict[str, Any]
SCHEMA = 1
_TRIGGERS = {"push": "P", "schedule": "s", "data": "^", "drift": "D", "manual": "*"}
"""What retrained, and its mark."""
_LIVE, _FROZEN = "#0072B2", "#E69F00"  # blue and orange of Okabe and Ito


def document(model: str, metric: str, maximize: bool, steps: list[Row], frozen: str) -> Row:
    """The replay as `--json` prints it; `worth` is how much better the live model was (positive is better)."""
    done = [step for step in steps if step.get("finished")]
    return {
        "model": model,
        "metric": metric,
        "goal": "maximize" if maximize else "minimize",
        "frozen_version": frozen,
        "steps": [{**step, "gain": gain(step, maximize)} for step in done],
        "worth": _worth(done, maximize),
        "schema": SCHEMA,
    }


def gain(step: Row, maximize: bool) -> float:
    """How much better the live model's answers were than the frozen model's on the same rows."""
    difference = float(step["live"]["metric"] - step["frozen"]["metric"])
    return difference if maximize else -difference


def _worth(steps: list[Row], maximize: bool) -> Row:
    """Over all steps, each weighing as many rows as it has; a step that the first version itself answered is a tie."""
    rows = sum(step["rows"] for step in steps)
    gains = [gain(step, maximize) for step in steps]
    mean = sum(each * step["rows"] for each, step in zip(gains, steps, strict=True)) / rows if rows else 0.0
    return {
        "rows": rows,
        "mean_gain": mean,
        "live": sum(step["live"]["metric"] * step["rows"] for step in steps) / rows if rows else None,
        "frozen": sum(step["frozen"]["metric"] * step["rows"] for step in steps) / rows if rows else None,
        "better": sum(each > 0 for each in gains),
        "worse": sum(each < 0 for each in gains),
        "champions": len({version for step in steps for version in step["live"]["versions"]}),
        "retrainings": sum(len(step["retrainings"]) for step in steps),
    }


def table(told: Row) -> Table:
    """One row per step."""
    metric = told["metric"]
    shown = Table(title=f"{told['model']}: live against version {told['frozen_version']}, frozen", title_justify="left")
    for column in ("days", "rows", "live version", f"live {metric}", f"frozen {metric}", "gain", "then"):
        shown.add_column(column, overflow="fold")
    for step in told["steps"]:
        shown.add_row(
            f"{step['since']} to {step['through']}",
            str(step["rows"]),
            ", ".join(step["live"]["versions"]),
            f"{step['live']['metric']:.4f}",
            f"{step['frozen']['metric']:.4f}",
            f"{step['gain']:+.4f}",
            _then(step),
        )
    return shown


def _then(step: Row) -> str:
    """What the step's data brought: each retraining's trigger and what became of its version."""
    told = [f"{run['trigger']} retrained" if run["status"] == "Succeeded" else f"{run['trigger']}: {run['status']}"
            for run in step["retrainings"]]  # fmt: skip
    if step.get("monitoring"):
        told.insert(0, f"monitoring {step['monitoring'].lower()}")
    told += [f"version {version['version']} {version['approval_status']}" for version in step["versions"]]
    return "; ".join(told) or "nothing retrained"


def summary(told: Row) -> str:
    worth, metric = told["worth"], told["metric"]
    if not told["steps"]:
        return "no step is finished yet"
    return (
        f"{worth['retrainings']} retrainings, {worth['champions']} versions live in turn: {metric} {worth['live']:.4f} "
        f"live against {worth['frozen']:.4f} frozen over {worth['rows']} rows, {worth['mean_gain']:+.4f}; "
        f"better in {worth['better']} and worse in {worth['worse']} of {len(told['steps'])} steps"
    )


def draw(told: Row, path: Path) -> None:
    """Write the plot, in the format of the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plot(told).savefig(path, dpi=110)


def plot(told: Row) -> Figure:
    """Both metrics step by step, where another version had become live, and what retrained after each step."""
    steps = told["steps"]
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    places = range(len(steps))
    for name, colour, line in (("live", _LIVE, "-"), ("frozen", _FROZEN, "--")):
        label = "live model" if name == "live" else f"version {told['frozen_version']}, frozen"
        axes.plot(places, [step[name]["metric"] for step in steps], line, marker="o", color=colour, label=label)
    floor = axes.get_xaxis_transform()  # heights from 0 at the bottom to 1 at the top
    for place in places[1:]:
        live = list(steps[place]["live"]["versions"])
        if live != list(steps[place - 1]["live"]["versions"]):
            axes.axvline(place - 0.5, color="0.7", linestyle=":")
            version = f"version {', '.join(live)}"
            axes.text(place - 0.47, 0.99, version, transform=floor, rotation=90, va="top", size="x-small", color="0.4")
    for row, (trigger, marker) in enumerate(_TRIGGERS.items()):
        after = [place + 0.5 for place in places if trigger in _triggers(steps[place])]
        if after:
            axes.scatter(after, [0.02 + 0.03 * row] * len(after), s=22, color="0.3", marker=marker, transform=floor,
                         label=f"{trigger} retrained")  # fmt: skip
    axes.set_xticks(list(places), [step["since"] for step in steps], rotation=45, ha="right")
    axes.set(title=f"{told['model']}: what retraining was worth", xlabel="step beginning on", ylabel=told["metric"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.15)  # room for the marks at the bottom
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _triggers(step: Row) -> set[str]:
    return {run["trigger"] for run in step["retrainings"]}
