"""The rehearsal's command line: each verb finds the running rehearsal, does one thing and says what it did."""

from __future__ import annotations

import json
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.table import Table

from rehearsal import (
    arrivals,
    assembly,
    audit,
    log_reader,
    npm_tools,
    policies,
    predictions,
    second_opinion,
    server,
    status,
    unused_grants,
    waiting,
)
from rehearsal import state_dir as state
from rehearsal.approval import APPROVED, REJECTED, set_approval
from rehearsal.connection import NotRunning, connect, in_each_account, look, repository_url, running
from rehearsal.landscape import NotDeployed
from rehearsal.replay.plan import Refused
from rehearsal.service import ServiceError
from rehearsal.triggers import NotRetrained, by_hand

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
_LOG_WIDTH = None if sys.stderr.isatty() else 160
"""Columns where there is no terminal to ask."""
console = Console(stderr=True, width=_LOG_WIDTH)
TIMED_OUT = 124

StateDir = Annotated[Path, typer.Option("--state-dir", help="Where all state is kept.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
TimeScale = Annotated[float, typer.Option(min=0.001, help="Waits, retries, bakes and schedules run this much faster.")]
STATE_DIR = Path(".rehearsal")


_EXPLAINED = (
    NotRunning,
    NotDeployed,
    server.NotStarted,
    arrivals.NoSampleData,
    log_reader.NoLog,
    predictions.NoPrediction,
    NotRetrained,
    assembly.DeployFailed,
    npm_tools.NotFetched,
    state.Unusable,
    Refused,
    ServiceError,
)


def main() -> None:
    """Run the verb; whatever is wrong becomes one line on standard error and exit code 1."""
    try:
        app()
    except _EXPLAINED as error:
        sys.exit(f"rehearsal: {error}")
    except ClientError as error:
        sys.exit(f"rehearsal: {error.operation_name}: {error.response['Error']['Message']}")
    except BotoCoreError as error:
        sys.exit(f"rehearsal: the embedded AWS does not answer: {error}")
    except OSError as error:
        if error.filename is None:
            traceback.print_exc()
        sys.exit(f"rehearsal: {error}")


@app.command()
def up(
    state_dir: StateDir = STATE_DIR,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = server.PORT,
    time_scale: TimeScale = 1.0,
) -> None:
    """Start the embedded cloud in the background and print the exports for other clients."""
    state.prepare(state_dir)
    at = server.up(state_dir, port=port, time_scale=time_scale)
    for name, value in at.environment().items():
        print(f"export {name}={value}")
    console.print(f"the rehearsal answers at {at.endpoint} (state in {state_dir}, time scale {at.time_scale:g})")


@app.command()
def down(
    state_dir: StateDir = STATE_DIR,
    purge: Annotated[bool, typer.Option("--purge", help="Forget all state as well.")] = False,
) -> None:
    """Stop the embedded cloud."""
    stopped = server.down(state_dir)
    console.print("stopped" if stopped else f"nothing was running on {state_dir}")
    if purge:
        state.purge(state_dir)
        console.print(f"{state_dir} forgotten")


@app.command()
def deploy(
    cdk_out: Annotated[Path, typer.Argument(help="A synthesized cloud assembly.")] = Path("cdk.out"),
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Publish assets and create or update the stacks, in dependency order."""
    assembly.deploy(running(state_dir), cdk_out, console)


@app.command()
def load(
    model: str,
    through: Annotated[str, typer.Option(help="Last day, YYYY-MM-DD.")] = "2013-03-01",
    repository: Annotated[Path, typer.Option(help="Where model_code is.")] = Path("."),
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Put sample raw data up to a date, as if it had arrived."""
    client_of, landscape = connect(state_dir)
    with console.status(f"{model}: sample data through {through} arrives"):
        put, there = arrivals.load(client_of, landscape.model(model), repository, through)
    console.print(f"{model}: {put} objects put, {there} were there already")


@app.command()
def remote(state_dir: StateDir = STATE_DIR) -> None:
    """Print the URL for `git remote add`."""
    at = running(state_dir)
    print(repository_url(at, look(at)[1]))


@app.command()
def retrain(
    model: str,
    reason: Annotated[str, typer.Option()] = "asked for by hand",
    as_of: Annotated[str, typer.Option("--as-of", help="Newest day to train on, YYYY-MM-DD; default the newest.")] = "",
    state_dir: StateDir = STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Ask for a retraining by hand; it starts, or waits within the budget."""
    decision = by_hand(*connect(state_dir), model, reason, as_of)
    if as_json:
        print(json.dumps(decision))
        return
    console.print(f"{model}: {decision['decision']}: {decision['reason']}", highlight=False, markup=False)


@app.command()
def wait(
    model: Annotated[list[str] | None, typer.Option(help="Only this model; may be repeated.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds.")] = 3600,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Block until no pipeline and no release is running; exit 1 when one failed or rolled back, 124 on timeout."""
    client_of, landscape = connect(state_dir)
    outcome = waiting.wait(client_of, landscape, model or sorted(landscape.models), timeout, console)
    if outcome.timed_out:
        console.print(f"still running after {timeout:g} s", style="yellow")
        raise typer.Exit(TIMED_OUT)
    for failure in outcome.failures:
        console.print(failure, style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1 if outcome.failures else 0)


@app.command(name="status")
def show_status(state_dir: StateDir = STATE_DIR, as_json: AsJson = False) -> None:
    """Triggers, pipelines, model packages, releases, endpoints."""
    document = status.report(*connect(state_dir))
    _print(document, as_json, status.tables)


@app.command()
def logs(execution_or_job: str, state_dir: StateDir = STATE_DIR) -> None:
    """The log of an execution or job, as CloudWatch would show it."""
    for line in log_reader.read(*connect(state_dir), execution_or_job):
        print(line)


@app.command()
def approve(
    model: str,
    version: int,
    reason: Annotated[str, typer.Option()] = "approved by hand",
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Approve a version: it rolls forward."""
    _set_approval(state_dir, model, version, APPROVED, reason)


@app.command()
def reject(
    model: str,
    version: int,
    reason: Annotated[str, typer.Option()] = "rejected by hand",
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Reject a version: if it is live, the newest approved one takes its place."""
    _set_approval(state_dir, model, version, REJECTED, reason)


def _set_approval(state_dir: Path, model: str, version: int, approval: str, reason: str) -> None:
    client_of, landscape = connect(state_dir)
    set_approval(client_of, landscape, model, version, approval, reason)
    console.print(f"{model} version {version} is {approval}")


@app.command()
def invoke(
    model: str,
    file: Annotated[Path | None, typer.Argument(help="Payload, .json or .csv.")] = None,
    environment: Annotated[str, typer.Option()] = "production",
    state_dir: StateDir = STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Predict with a payload, default the sample request of the live version."""
    client_of, landscape = connect(state_dir)
    payload = predictions.payload_of_file(file) if file else None
    answer = predictions.predict(client_of, landscape, model, environment, payload)
    if as_json:
        print(json.dumps(answer))
        return
    console.print(
        f"{model} {environment}: version {answer['version']}, commit {str(answer['commit'])[:8]}", highlight=False
    )
    print(answer["prediction"])


@app.command(name="audit")
def show_audit(
    denied: Annotated[bool, typer.Option("--denied", help="Only what was refused.")] = False,
    unused: Annotated[bool, typer.Option("--unused", help="What roles are granted and no call has needed.")] = False,
    check: Annotated[bool, typer.Option("--check", help="An independent evaluator decides every call again.")] = False,
    state_dir: StateDir = STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Who called what, allowed by which statement."""
    if not state_dir.is_dir():
        raise NotRunning(f"there is no {state_dir}; `./pushline up --state-dir {state_dir}` starts a rehearsal there")
    if unused:
        _print([grant.row() for grant in _unused(state_dir)], as_json, _grants)
    elif check:
        opinion = second_opinion.ask(in_each_account(running(state_dir)), audit.read(state_dir))
        _print(opinion.row(), as_json, _opinion)
        raise typer.Exit(1 if opinion.disagreements else 0)
    else:
        _print(list(audit.read(state_dir, denied=denied)), as_json, _decisions)


def _unused(state_dir: Path) -> list[unused_grants.Grant]:
    """Of the roles that stacks made; those of the CDK's bootstrap are not the application's."""
    own = [
        role
        for client_of in in_each_account(running(state_dir))
        for names in [policies.names_in_stacks(client_of)]
        for role in policies.roles(client_of).values()
        if role.name in names
    ]
    return unused_grants.unused(own, audit.read(state_dir))


def _grants(rows: list[dict[str, str]]) -> Table:
    table = Table("role", "granted and never used", "on")
    for row in rows:
        table.add_row(row["role"], row["action"], row["resource"])
    return table


def _opinion(row: dict[str, Any]) -> Table:
    table = Table("what", "lines")
    table.add_row("decided again", f"{row['decided']} ({row['distinct']} different, {row['denied']} denied)")
    for why, number in row["left_out"].items():
        table.add_row(f"left out: {why}", str(number))
    table.add_row("disagreements", str(len(row["disagreements"])))
    for entry in row["disagreements"][:20]:
        said = entry["second_opinion"].get("result") or entry["second_opinion"]
        table.add_row(f"{entry['principal']} {entry['action']} {entry['resource']}", f"{entry['decision']}, not {said}")
    return table


@app.command()
def demo(
    state_dir: StateDir = Path(".rehearsal-demo"),
    cdk_out: Path = Path("cdk.out"),
    repository: Annotated[Path, typer.Option(help="The git repository that is cloned and pushed.")] = Path("."),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the embedded cloud running.")] = False,
    time_scale: TimeScale = 20.0,
) -> None:
    """The whole story on real data, in a clone of its own; exit code 0 only if all of it held."""
    from rehearsal import demo as story

    raise typer.Exit(0 if story.tell(state_dir, cdk_out, repository, console, keep=keep, time_scale=time_scale) else 1)


@app.command()
def replay(
    model: str,
    first: Annotated[
        str, typer.Option("--from", help="First day, YYYY-MM-DD; the first model is trained on what was before.")
    ],
    last: Annotated[str, typer.Option("--to", help="Last day, YYYY-MM-DD.")],
    step: Annotated[str, typer.Option(help="Days or weeks that arrive at a time, such as 7d.")] = "7d",
    triggers: Annotated[str, typer.Option(help="What may retrain the model, of these.")] = "schedule,data,drift",
    state_dir: StateDir = Path(".rehearsal-replay"),
    repository: Annotated[Path, typer.Option(help="The git repository that is cloned and pushed.")] = Path("."),
    plot: Annotated[Path | None, typer.Option(help="Where the plot goes (default: in the state directory).")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the embedded cloud running.")] = False,
    time_scale: TimeScale = 100.0,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for a step to come to rest.")] = 1800,
    as_json: AsJson = False,
) -> None:
    """Let data arrive step by step, with requests and labels, and hold the live model against a frozen first one."""
    from rehearsal.replay import plan, report, story

    asked = plan.plan(model, first, last, step, triggers)
    try:
        told = story.replay(asked, state_dir, repository, console, time_scale, timeout)
    finally:
        if not keep:
            server.down(state_dir)
    picture = plot or state_dir / "replay" / f"{model}.png"
    report.draw(told, picture)
    _print(told, as_json, report.table)
    console.print(f"{report.summary(told)}\nplot: {picture}", highlight=False, soft_wrap=True)


def _decisions(entries: list[dict[str, Any]]) -> Table:
    table = Table("principal", "action", "resource", "decision", "times")
    kinds = Counter((entry["principal"], entry["action"], entry["resource"], entry["decision"]) for entry in entries)
    for (principal, action, resource, decision), times in sorted(kinds.items()):
        table.add_row(principal.rpartition("::")[2], action, resource, decision, str(times))
    return table


def _print(document: Any, as_json: bool, render: Callable[[Any], Any]) -> None:
    if as_json:
        print(json.dumps(document, default=str))
    else:
        Console(width=None if sys.stdout.isatty() else _LOG_WIDTH).print(render(document))
