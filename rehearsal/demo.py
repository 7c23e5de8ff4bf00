"""The whole story on one machine: push, retrain, release, predict; then a better, a worse and a rejected version.

A push retrains the models it touches and no other, which every push here checks; one to shared code retrains all.

Everything happens in a state directory and a clone of its own. Each scene checks what it shows; one that does
not hold is said, and makes the demo fail. The last one: no call of the whole story was denied.
"""

from __future__ import annotations

import functools
import subprocess
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from rehearsal import arrivals, assembly, audit, predictions, server, status, waiting
from rehearsal import state_dir as state
from rehearsal.approval import REJECTED, set_approval
from rehearsal.connection import look, repository_url
from rehearsal.landscape import ClientOf, Landscape
from rehearsal.place import Place
from rehearsal.traffic import Tally
from rehearsal.zero_downtime import ZeroDowntime

THROUGH = "2013-03-01"
"""Sample data arrives up to this date, unless the model's demo.yaml names another."""
TIMEOUT_SECONDS = 900.0
SCENES = "demo.yaml"
"""In a model's folder: `through`, and which changes of its model.yaml make a `better` and a `worse` challenger."""
SHARED = "model_code/shared"


class DoesNotHold(Exception):
    """Something the demo shows did not happen; the message says what was seen instead."""


@dataclass
class Stage:
    """Where the story plays."""

    at: server.Running
    clone: Path
    console: Console
    client_of: ClientOf
    landscape: Landscape
    timings: list[tuple[str, float]] = field(default_factory=list)
    downtime: ZeroDowntime = field(default_factory=ZeroDowntime)

    def version(self, model: str, environment: str = "production") -> int:
        endpoint, _ = predictions.live_version(self.client_of, self.landscape, model, environment)
        return int(endpoint["version"])


def tell(state_dir: Path, cdk_out: Path, repository: Path, console: Console, *, keep: bool, time_scale: float) -> bool:
    """Tell the whole story from an empty state directory; True if all of it held."""
    began = time.time()
    state.require_git()
    assembly.read(cdk_out, Place("", ""))  # nothing is forgotten for a story that can't be told
    state.purge(state_dir)
    state.prepare(state_dir)
    try:
        stage = _set_the_stage(state_dir, cdk_out, repository, console, time_scale)
        held = _play(stage)
        _summary(stage, held, time.time() - began)
        return held
    finally:
        if keep:
            console.print(
                f"still running: ./pushline status --state-dir {state_dir}; ./pushline down --state-dir {state_dir}"
            )
        else:
            server.down(state_dir)


def _set_the_stage(state_dir: Path, cdk_out: Path, repository: Path, console: Console, time_scale: float) -> Stage:
    clone = state_dir / "clone"
    with _timed(console, "up: the embedded cloud") as up:
        at = server.up(state_dir, port=0, time_scale=time_scale)
    with _timed(console, "deploy: the templates as synthesized") as deployed:
        assembly.deploy(at, cdk_out, console)
    client_of, landscape = look(at)
    stage = Stage(at, clone, console, client_of, landscape, [up.result, deployed.result])
    _clone(repository, clone)
    for parts in stage.landscape.models.values():
        through = str(_scenes(clone, parts.name).get("through", THROUGH))
        with _timed(console, f"load: {parts.name}, sample data through {through}") as loaded:
            put, _ = arrivals.load(client_of, parts, clone, through)
        console.print(f"  {put} objects under {parts.raw_data}", highlight=False)
        stage.timings.append(loaded.result)
    return stage


def _play(stage: Stage) -> bool:
    """Every scene in turn; a scene that does not hold ends the story, since the next ones build on it."""
    models = sorted(stage.landscape.models)
    try:
        _first_push(stage, models)
        _shared_code(stage, models)
        for model in models:
            scenes = _scenes(stage.clone, model)
            if "better" in scenes:
                _better(stage, model, scenes["better"])
            if "worse" in scenes:
                _worse(stage, model, scenes["worse"])
            if "better" in scenes:
                _rollback(stage, model)
        _nothing_denied(stage)
    except (DoesNotHold, predictions.NoPrediction) as problem:
        stage.console.print(f"✗ {problem}", style="bold red", highlight=False, markup=False)
        return False
    return True


def _scenes(clone: Path, model: str) -> dict[str, Any]:
    path = clone / "model_code" / model / SCENES
    return dict(YAML(typ="safe").load(path) or {}) if path.is_file() else {}


def _first_push(stage: Stage, models: list[str]) -> None:
    _title(stage, "One push: verify, retrain, register, release to staging and production")
    _push(stage, "push", models)
    for model in models:
        _predict(stage, model)


def _shared_code(stage: Stage, models: list[str]) -> None:
    """Those that watch it; a repository without shared code has nothing to show here."""
    shared = stage.clone / SHARED / "__init__.py"
    sharing = [model for model in models if SHARED in _watched(stage.clone, model)]
    if not sharing or not shared.is_file():
        return
    _title(stage, f"A push to {SHARED} retrains every model that watches it: {', '.join(sharing)}")
    shared.write_text(shared.read_text() + "# Edited by the demo: whoever imports this package is trained again.\n")
    _commit(stage, "shared: a line that every model which watches it travels with")
    _push(stage, "push to shared code", sharing)


def _watched(clone: Path, model: str) -> list[str]:
    return list(YAML(typ="safe").load(clone / "model_code" / model / "model.yaml").get("watch", ()))


def _better(stage: Stage, model: str, changes: dict[str, Any]) -> None:
    _title(stage, f"A better challenger goes live under live traffic: {_words(changes)}")
    before = stage.version(model)
    with _traffic(stage, model) as tally:
        _change(stage, model, changes)
        _push(stage, "push of a better challenger under traffic", [model])
    after = stage.version(model)
    _hold_answered(stage, tally)
    _hold(after > before, f"version {after} is live in production; a newer one than {before} should be")
    _predict(stage, model)


def _worse(stage: Stage, model: str, changes: dict[str, Any]) -> None:
    _title(stage, f"A worse one is refused: {_words(changes)}")
    before = stage.version(model)
    with _traffic(stage, model) as tally:
        _change(stage, model, changes)
        _push(stage, "push of a worse challenger", [model])
    newest = status.model_packages(stage.client_of, stage.landscape.model(model))[0]
    stage.console.print(
        f"  version {newest['version']}: {newest['approval_status']}: {newest['reason']}", highlight=False
    )
    _hold(
        newest["approval_status"] == "Rejected",
        f"version {newest['version']} is {newest['approval_status']}, not Rejected",
    )
    _hold_answered(stage, tally)
    _hold(stage.version(model) == before, f"version {stage.version(model)} is live; {before} should still be")


def _rollback(stage: Stage, model: str) -> None:
    live = stage.version(model)
    _title(stage, f"One reject of version {live} rolls back, without retraining")
    began = time.time()
    with _traffic(stage, model) as tally:
        set_approval(stage.client_of, stage.landscape, model, live, REJECTED, "rejected by hand in the demo")
        _wait(stage, "reject", [model], began)
    _hold_answered(stage, tally)
    now = stage.version(model)
    _hold(now < live, f"version {now} is live in production; an older one than {live} should be")
    _predict(stage, model)


def _nothing_denied(stage: Stage) -> None:
    """Every call of the whole story was made under a role and decided by its policies: the templates grant enough."""
    _title(stage, "No call was denied")
    calls = audit.read(stage.at.state_dir)
    denied = [call for call in calls if call["decision"] != "Allow"]
    who = {call.get("role") or call["principal"] for call in calls}
    stage.console.print(f"  calls {len(calls)}, principals {len(who)}, denied {len(denied)}", highlight=False)
    told = "; ".join(f"{call['principal']} {call['action']} {call['resource']}" for call in denied[:3])
    _hold(not denied, f"{len(denied)} calls were denied: {told}")


def _traffic(stage: Stage, model: str) -> AbstractContextManager[Tally]:
    return stage.downtime.traffic(stage.client_of, stage.landscape, model)


def _hold_answered(stage: Stage, tally: Tally) -> None:
    """Production was asked all the time, and always answered, by versions that were approved."""
    stage.console.print(
        f"  requests sent {tally.sent}, failed {tally.failed}; answers by version: {_by_version(tally)}",
        highlight=False,
    )
    _hold(
        tally.sent > 0 and tally.failed == 0,
        f"{tally.failed} of {tally.sent} requests failed during the redeployment: {tally.errors[:3]}",
    )
    _hold(stage.downtime.unapproved == 0, f"{stage.downtime.unapproved} answers came from a version nobody approved")


def _push(stage: Stage, what: str, models: list[str]) -> None:
    """Push, wait for these models to rest, and see that the push started them, each once, and no other."""
    before = {model: _pushed(stage, model) for model in stage.landscape.models}
    began = time.time()
    url = repository_url(stage.at, stage.landscape)
    _git(stage.clone, "push", "--quiet", url, "HEAD:refs/heads/main")
    _wait(stage, what, models, began)
    started = {model: _pushed(stage, model) - before[model] for model in stage.landscape.models}
    for model, executions in sorted(started.items()):
        wanted = 1 if model in models else 0
        _hold(len(executions) == wanted, f"the push started {model} {len(executions)} times, not {wanted}")
    if left_alone := sorted(set(started) - set(models)):
        stage.console.print(f"  left alone: {', '.join(left_alone)}", highlight=False)


def _pushed(stage: Stage, model: str) -> set[str]:
    """The model's pipeline executions that pushes started."""
    rows = status.pipelines(stage.client_of, stage.landscape.model(model))
    return {row["execution"] for row in rows if row["trigger"] == "push"}


def _wait(stage: Stage, what: str, models: list[str], began: float) -> None:
    outcome = waiting.wait(stage.client_of, stage.landscape, models, TIMEOUT_SECONDS, stage.console, since=began)
    ended = max((hop.began + hop.seconds for hop in outcome.hops), default=time.time())
    stage.timings.append((f"{what} to rest", ended - began))
    stage.timings.extend((f"  {hop.name}", hop.seconds) for hop in outcome.hops)
    _hold(not outcome.timed_out, f"still running after {TIMEOUT_SECONDS:g} s")
    _hold(not outcome.failures, "; ".join(outcome.failures))
    _hold(bool(outcome.hops), "nothing started")


def _predict(stage: Stage, model: str) -> None:
    answer = predictions.predict(stage.client_of, stage.landscape, model, "production", None)
    stage.console.print(
        f"  {model} in production: version {answer['version']}, commit {answer['commit'][:8]}, "
        f"prediction {answer['prediction'][:100]}",
        highlight=False,
    )


def _change(stage: Stage, model: str, changes: dict[str, Any]) -> None:
    """Edit model.yaml as a data scientist would, and commit."""
    path = stage.clone / "model_code" / model / "model.yaml"
    yaml = YAML()
    yaml.width = 200
    yaml.preserve_quotes = True  # a plain `?` ends a flow mapping for YAML 1.1
    document = yaml.load(path)
    for dotted, value in changes.items():
        *parents, key = dotted.split(".")
        functools.reduce(lambda node, name: node[name], parents, document)[key] = value
    yaml.dump(document, path)
    _commit(stage, f"{model}: {_words(changes)}")


def _commit(stage: Stage, message: str) -> None:
    identity = ("-c", "user.name=Demo", "-c", "user.email=demo@example.com")
    _git(stage.clone, *identity, "commit", "--quiet", "--all", "--message", message)


def _clone(repository: Path, clone: Path) -> None:
    _git(Path("."), "clone", "--quiet", "--no-hardlinks", f"file://{repository.resolve()}", str(clone))


def _git(folder: Path, *arguments: str) -> None:
    finished = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    if finished.returncode:
        raise server.NotStarted(f"git {arguments[0]} failed: {finished.stderr.strip()}")


def _hold(condition: bool, otherwise: str) -> None:
    if not condition:
        raise DoesNotHold(otherwise)


def _summary(stage: Stage, held: bool, seconds: float) -> None:
    console = stage.console
    hops = Table("hop", "seconds", title="Hops", title_justify="left")
    for name, took in stage.timings:
        hops.add_row(name, f"{took:.1f}")
    console.print(hops)
    console.print(status.tables(status.report(stage.client_of, stage.landscape)))
    if stage.downtime.tally.sent:
        console.print(f"zero downtime: {stage.downtime.told}", highlight=False)
    verdict = "[bold green]all of it held" if held else "[bold red]it did not hold"
    console.print(f"{verdict}[/] in {seconds:.0f} s")


def _title(stage: Stage, text: str) -> None:
    stage.console.rule(text, align="left")


def _words(changes: dict[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in changes.items())


def _by_version(tally: Tally) -> str:
    return ", ".join(f"{arn.rpartition('/')[2] or '?'}: {count}" for arn, count in sorted(tally.answers.items()))


class _timed:
    """Says what is being done and how long it took; `result` is (what, seconds)."""

    def __init__(self, console: Console, what: str) -> None:
        self.console, self.what, self.result = console, what, (what, 0.0)

    def __enter__(self) -> _timed:
        self._began = time.time()
        self.console.print(self.what, highlight=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.result = (self.what.partition(":")[0], time.time() - self._began)
