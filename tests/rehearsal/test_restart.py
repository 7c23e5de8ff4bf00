"""After `down` and `up` everything is still there; after a kill in mid-retraining `status` says what was lost."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from tests.rehearsal.scientist import CUSTOMERS, Document, Scientist
from tests.rehearsal.waiting import PATIENCE_SECONDS, until


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


def test_everything_is_there_after_down_and_up(customers: Scientist, customers_at_rest: Path, tmp_path: Path) -> None:
    """`up` in another place, and once more where it is."""
    before = json.loads((customers_at_rest / "status.json").read_text())
    history, answer = retraining_history(customers), customers.live(CUSTOMERS)
    # The reconciler looks by itself now and then, and would be a release that runs, or was lost.
    customers.wait(CUSTOMERS)
    customers.restart()
    customers.wait(CUSTOMERS)
    after = customers.status()
    # New data that landed has settled since: what became of it is told on top of what was told before.
    known = len(after["triggers"]) - len(before["triggers"])
    newer, told = after["triggers"][:known], after["triggers"][known:]
    assert {(row["trigger"], row["decision"]) for row in newer} <= {("data", "ignore")}
    assert without_urls({**after, "triggers": told}) == without_urls(before)
    assert retraining_history(customers) == history
    assert "ExecutionSucceeded" in history
    assert customers.live(CUSTOMERS) == answer
    for endpoint in after["endpoints"]:
        assert endpoint["status"] == "InService"
        # A request waits until the endpoint's fleet is up again.
        assert httpx.get(f"{endpoint['url']}/ping", timeout=PATIENCE_SECONDS).status_code == 200
    customers.git("clone", "--quiet", customers.verb("remote").strip(), str(tmp_path / "again"))
    assert (tmp_path / "again" / "model_code" / CUSTOMERS / "model.yaml").is_file()
    assert customers.executions(CUSTOMERS) == {row["execution"] for row in before["pipelines"]}


def test_a_kill_in_mid_retraining_is_reported_and_the_next_push_goes_through(customers: Scientist) -> None:
    live = customers.live(CUSTOMERS)
    customers.configure({"training.hyperparameters.num_round": 10}, CUSTOMERS)
    known = customers.executions(CUSTOMERS)
    customers.push("Will be lost")
    until(lambda: features_run(customers), "the feature job did not start")
    customers.restart(kill=True)
    (lost,) = customers.executions(CUSTOMERS) - known
    told = customers.wait(CUSTOMERS, code=1)
    row = next(row for row in customers.status()["pipelines"] if row["execution"] == lost)
    assert row["status"] == "Failed"
    assert "lost when the rehearsal stopped" in row["reason"]
    assert "lost when the rehearsal stopped" in told
    assert customers.live(CUSTOMERS) == live
    customers.configure({"training.hyperparameters.num_round": 20, "training.hyperparameters.max_depth": 2}, CUSTOMERS)
    assert customers.pushed("Goes through", CUSTOMERS)["status"] == "Succeeded"
    now = customers.live(CUSTOMERS)
    assert (now["version"], now["commit"]) == (2, customers.git("rev-parse", "HEAD").strip()), newest(customers)


def features_run(person: Scientist) -> bool:
    """Whether the feature job is running."""
    runs = person.at.client("glue").get_job_runs(JobName="customers-features")["JobRuns"]
    return any(run["JobRunState"] == "RUNNING" for run in runs)


def newest(person: Scientist) -> Document:
    """The newest model package, which says why it is not live."""
    return dict(person.status()["model_packages"][0])
