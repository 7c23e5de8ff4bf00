"""After `down` and `up` everything is still there; after a kill in mid-retraining `status` says what was lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from contract.new import write_model
from tests.conftest import synthesize
from tests.rehearsal.scientist import Document, Scientist, private_clone, rehearsal, until

MODEL = "customers"
REDUCED = {"features.arguments.window_days": 10, "features.arguments.holdout_days": 3,
           "training.hyperparameters.num_round": 1,
           "training.hyperparameters.max_depth": 1}  # fmt: skip


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scientist]:
    """A model of its own, live."""
    clone = private_clone(tmp_path_factory.mktemp("restart") / "clone")
    write_model(clone, MODEL)
    done = synthesize(clone.with_name("cdk.out"), root=clone)
    assert done.returncode == 0, done.stderr
    with rehearsal(clone, clone.with_name("cdk.out")) as person:
        person.configure(REDUCED, MODEL)
        person.load(MODEL)
        person.pushed("A new model", MODEL)
        yield person


def retraining_history(person: Scientist) -> list[str]:
    """What the retraining state machine's executions went through."""
    states = person.at.client("stepfunctions")
    (machine,) = [row["stateMachineArn"] for row in states.list_state_machines()["stateMachines"]
                  if "Retraining" in row["name"]]  # fmt: skip
    executions = states.list_executions(stateMachineArn=machine)["executions"]
    return [event["type"] for execution in executions
            for event in states.get_execution_history(executionArn=execution["executionArn"])["events"]]  # fmt: skip


def without_urls(document: Document) -> Document:
    """A restarted rehearsal may answer on another port."""
    return {**document, "endpoints": [{**row, "url": None} for row in document["endpoints"]]}


def test_everything_is_there_after_down_and_up(person: Scientist, tmp_path: Path) -> None:
    before, history, answer = person.status(), retraining_history(person), person.live(MODEL)
    person.restart()
    after = person.status()
    assert without_urls(after) == without_urls(before)
    assert retraining_history(person) == history
    assert "ExecutionSucceeded" in history
    assert person.live(MODEL) == answer
    for endpoint in after["endpoints"]:
        assert endpoint["status"] == "InService"
        assert httpx.get(f"{endpoint['url']}/ping").status_code == 200
    person.git("clone", "--quiet", person.verb("remote").strip(), str(tmp_path / "again"))
    assert (tmp_path / "again" / "model_code" / MODEL / "model.yaml").is_file()
    assert person.executions(MODEL) == {row["execution"] for row in before["pipelines"]}


def test_a_kill_in_mid_retraining_is_reported_and_the_next_push_goes_through(person: Scientist) -> None:
    live = person.live(MODEL)
    person.configure({"training.hyperparameters.num_round": 10}, MODEL)
    known = person.executions(MODEL)
    person.push("Will be lost")
    until(lambda: features_run(person), "the feature job did not start", 120)
    person.restart(kill=True)
    (lost,) = person.executions(MODEL) - known
    told = person.wait(MODEL, code=1)
    row = next(row for row in person.status()["pipelines"] if row["execution"] == lost)
    assert row["status"] == "Failed"
    assert "lost when the rehearsal stopped" in row["reason"]
    assert "lost when the rehearsal stopped" in told
    assert person.live(MODEL) == live
    person.configure({"training.hyperparameters.num_round": 20, "training.hyperparameters.max_depth": 2}, MODEL)
    assert person.pushed("Goes through", MODEL)["status"] == "Succeeded"
    now = person.live(MODEL)
    assert (now["version"], now["commit"]) == (2, person.git("rev-parse", "HEAD").strip()), newest(person)


def features_run(person: Scientist) -> bool:
    """Whether the feature job is running."""
    runs = person.at.client("glue").get_job_runs(JobName="customers-features")["JobRuns"]
    return any(run["JobRunState"] == "RUNNING" for run in runs)


def newest(person: Scientist) -> Document:
    """The newest model package, which says why it is not live."""
    return dict(person.status()["model_packages"][0])
