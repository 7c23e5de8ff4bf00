"""A folder is all that a new model takes: before its deploy a push of it breaks nothing, after one it goes live."""

from __future__ import annotations

import shutil

from tests.rehearsal.scientist import CUSTOMERS, Scientist
from tests.rehearsal.waiting import until

COPY = "buyers"
TEMPLATES = {"training.hyperparameters.num_round": 50, "training.hyperparameters.max_depth": 3}
"""What a new model.yaml has, and what was made less of for the world that tests share."""


def test_a_new_model_goes_live_in_both_environments(customers: Scientist) -> None:
    production, staging = customers.live(CUSTOMERS), customers.live(CUSTOMERS, "staging")
    assert (production["version"], staging["version"]) == (1, 1)
    assert production["commit"] == staging["commit"] == customers.git("rev-parse", "HEAD").strip()


def test_copy_edit_the_yaml_deploy_once_and_push(customers: Scientist) -> None:
    live, known = customers.live(CUSTOMERS), customers.executions(CUSTOMERS)
    shutil.copytree(customers.folder(CUSTOMERS), customers.folder(COPY))
    # The copied scripts import the first model's modules, so these travel along.
    customers.configure({"name": COPY, "watch": [f"model_code/{CUSTOMERS}"]}, COPY)
    customers.push("A copy, not deployed yet")
    until(lambda: advice(customers) is not None, "the push was not routed")
    assert "run cdk deploy 'Buyers-*'" in str(advice(customers))
    assert customers.executions(CUSTOMERS) == known

    customers.deploy()
    customers.load(COPY)
    customers.configure({"description": "Deployed", **TEMPLATES}, COPY)
    assert customers.pushed("Its first own push", COPY)["status"] == "Succeeded"
    answer = customers.live(COPY)
    assert (answer["version"], answer["commit"]) == (1, customers.git("rev-parse", "HEAD").strip())
    assert customers.live(CUSTOMERS) == live
    assert customers.executions(CUSTOMERS) == known


def advice(customers: Scientist) -> str | None:
    """What `status` says about the copied folder."""
    rows = customers.status()["triggers"]
    return next((row["reason"] for row in rows if (row["model"], row["decision"]) == (COPY, "ignore")), None)
