"""Whatever is told twice, late or not at all, and whatever fails meanwhile: no push and no data is lost, nothing is
done twice, and no storm costs more than the budget."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from itertools import pairwise

import pytest

from tests.lambdas.retraining_world import ENVIRONMENT
from tests.lambdas.trigger_storm import LONG_AGO, MODELS, storm

BUDGET, DAY, MINUTE = int(ENVIRONMENT["MAXIMUM_PER_DAY"]), dt.timedelta(days=1), dt.timedelta(minutes=1)
SEEDS = (*range(3), 28, 34, 55, 72, 117)
"""The last five are those of the first two hundred in which an earlier door lost data or a push."""
BY_PEOPLE = ("push", "manual")


@pytest.mark.parametrize("archives", [False, True], ids=["commits", "archives"])
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_done_twice_and_the_budget_holds(
    seed: int, archives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = storm(seed, monkeypatch, archives=archives)

    assert found.world.schedules == {}
    for model in MODELS:
        flown = found.flown(model)
        assert any(flight.commit >= found.concerned(model) for flight in flown), f"{model}: a push was lost"
        on_newest = [flight.execution.started for flight in flown if flight.execution.variables["AsOf"] != LONG_AGO]
        for landed in found.landed[model][-1:]:
            assert on_newest[-1] > landed, f"{model}: the last data was lost"
        trained = [flight.execution for flight in flown if "Retrain" in flight.execution.stages]
        for run in trained:
            assert sum(run.started - DAY < other.started <= run.started for other in trained) <= BUDGET
        cool_down = dt.timedelta(hours=found.world.models[model]["cool_down_hours"])
        for before, run in pairwise(trained):
            assert run.variables["Trigger"] in BY_PEOPLE or run.started - before.started > cool_down - MINUTE
        done = Counter((run.variables["Trigger"], run.commit if run.variables["Trigger"] == "push" else
                        run.variables["Reason"]) for run in trained
                       if run.status == "Succeeded" and run.variables["Trigger"] in ("push", "schedule"))  # fmt: skip
        assert set(done.values()) <= {1}
