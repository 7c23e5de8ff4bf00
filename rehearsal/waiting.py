"""Waits until nothing is running any more, showing every hop while it does."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table

from rehearsal import status
from rehearsal.hops import DONE, FAILED, RUNNING, Hop, follow
from rehearsal.landscape import ClientOf, Landscape, ModelParts

QUIET_SECONDS = 4.0
"""Between an event and what it starts lie a function's cold start and a rule; quiet must last longer than that."""
_POLL_SECONDS = 0.5
_MARK = {RUNNING: "[cyan]●[/]", DONE: "[green]✓[/]", FAILED: "[red]✗[/]"}


@dataclass
class Outcome:
    """What waiting found: `failures` in plain words (empty: all is well), `timed_out`, and the hops that were seen."""

    failures: list[str] = field(default_factory=list)
    timed_out: bool = False
    hops: list[Hop] = field(default_factory=list)


def wait(
    client_of: ClientOf,
    landscape: Landscape,
    models: Iterable[str],
    timeout: float,
    console: Console,
    since: float | None = None,
    poll_seconds: float = _POLL_SECONDS,
) -> Outcome:
    """Block until the models' pipelines and releases rest, at most `timeout` seconds.

    Hops are shown from `since` (epoch seconds, default: of what is running now) on. Live on a terminal; elsewhere one
    line per hop that ends.
    """
    parts = [landscape.model(name) for name in models]
    start, quiet_since = time.time(), None
    since = start - 5 if since is None else since
    outcome = Outcome()
    with _Screen(console) as screen:
        while True:
            outcome.hops = [hop for model in parts for hop in follow(client_of, model, since)]
            screen.show(outcome.hops)
            now = time.time()
            quiet_since = None if any(busy(client_of, model) for model in parts) else quiet_since or now
            if quiet_since and now - quiet_since >= QUIET_SECONDS:
                break
            if now - start > timeout and quiet_since is None:  # quiet is only being confirmed: not a timeout
                outcome.timed_out = True
                break
            time.sleep(poll_seconds)
    outcome.failures = [failure for model in parts for failure in failures(client_of, model)]
    return outcome


def busy(client_of: ClientOf, parts: ModelParts) -> bool:
    """Whether a pipeline or reconciler execution of the model is running."""
    if parts.pipeline:
        newest = client_of("codepipeline").list_pipeline_executions(pipelineName=parts.pipeline, maxResults=10)
        if any(row["status"] in ("InProgress", "Stopping") for row in newest["pipelineExecutionSummaries"]):
            return True
    return any(
        client_of("stepfunctions", parts.places[environment]).list_executions(
            stateMachineArn=arn, statusFilter="RUNNING", maxResults=1
        )["executions"]
        for environment, arn in parts.reconcilers.items()
    )


def failures(client_of: ClientOf, parts: ModelParts) -> list[str]:
    """Why the model's newest pipeline execution or newest release per environment failed, if one did."""
    found = []
    runs = [row for row in status.pipelines(client_of, parts) if row["trigger"] != "creation"]
    if runs and runs[0]["status"] in ("Failed", "Stopped"):
        found.append(f"{parts.name}: {runs[0]['stage']} {runs[0]['status'].lower()}: {runs[0]['reason']}")
    latest: dict[str, status.Row] = {}
    for row in status.releases(client_of, parts):
        if row["environment"] not in latest or row["started"] > latest[row["environment"]]["started"]:
            latest[row["environment"]] = row
    return found + [
        f"{parts.name}: release to {environment} {row['status'].lower()}: {row['reason']}"
        for environment, row in latest.items()
        if row["status"] not in ("SUCCEEDED", "RUNNING")
    ]


class _Screen:
    """Hops as a live table on a terminal, as lines in a log."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self.printed: set[tuple[str, str, float]] = set()

    def __enter__(self) -> _Screen:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def show(self, hops: list[Hop]) -> None:
        for hop in hops:
            key = (hop.model, hop.name, hop.began)
            if hop.status != RUNNING and key not in self.printed:
                self.printed.add(key)
                self.console.print(_line(hop), highlight=False)
        if self.live:
            running = Table.grid()
            for hop in hops:
                if hop.status == RUNNING:
                    running.add_row(_line(hop))
            self.live.update(running)


def _line(hop: Hop) -> str:
    return f"{_MARK[hop.status]} {hop.model}  {hop.name:<44} {hop.seconds:6.1f} s"
