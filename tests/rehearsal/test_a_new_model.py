"""A folder is all that a new model takes: before its deploy a push of it breaks nothing, after one it goes live."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from contract.new import write_model
from tests.conftest import synthesize
from tests.rehearsal.scientist import Scientist, private_clone, rehearsal, until

FIRST, COPY = "customers", "buyers"
REDUCED = {"features.arguments.window_days": 10, "features.arguments.holdout_days": 3}


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scientist]:
    """One model, live."""
    clone = private_clone(tmp_path_factory.mktemp("a-new-model") / "clone")
    write_model(clone, FIRST)
    done = synthesize(clone.with_name("cdk.out"), root=clone)
    assert done.returncode == 0, done.stderr
    with rehearsal(clone, clone.with_name("cdk.out")) as person:
        person.configure(REDUCED, FIRST)
        person.load(FIRST)
        person.pushed("A new model", FIRST)
        yield person


def test_copy_edit_the_yaml_deploy_once_and_push(person: Scientist) -> None:
    live, known = person.live(FIRST), person.executions(FIRST)
    shutil.copytree(person.folder(FIRST), person.folder(COPY))
    # The copied scripts import the first model's modules, so these travel along.
    person.configure({"name": COPY, "watch": [f"model_code/{FIRST}"]}, COPY)
    person.push("A copy, not deployed yet")
    until(lambda: advice(person) is not None, "the push was not routed")
    assert "run cdk deploy 'Buyers-*'" in str(advice(person))
    assert person.executions(FIRST) == known

    deployed = person.clone.with_name("with-the-copy")
    assert synthesize(deployed, root=person.clone).returncode == 0
    person.verb("deploy", str(deployed))
    person.load(COPY)
    person.configure({"description": "Deployed"}, COPY)
    assert person.pushed("Its first own push", COPY)["status"] == "Succeeded"
    answer = person.live(COPY)
    assert (answer["version"], answer["commit"]) == (1, person.git("rev-parse", "HEAD").strip())
    assert person.live(FIRST) == live
    assert person.executions(FIRST) == known


def advice(person: Scientist) -> str | None:
    """What `status` says about the copied folder."""
    rows = person.status()["triggers"]
    return next((row["reason"] for row in rows if (row["model"], row["decision"]) == (COPY, "ignore")), None)
