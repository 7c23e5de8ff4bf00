"""Whatever is told twice, late or not at all, and whatever fails meanwhile: no push and no data is lost, nothing is
done twice, and no storm costs more than the budget."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from itertools import pairwise

import pytest

from lambdas.start_retraining.decide import BY_PEOPLE
from tests.lambdas.retraining_world import DAY, ENVIRONMENT, HOUR, MINUTE
from tests.lambdas.trigger_storm import LONG_AGO, MODELS, storm, watched

BUDGET = int(ENVIRONMENT["MAXIMUM_PER_DAY"])
SEEDS = (0, 1, 34, 94, 122, 130, 174, 184)
"""All but the first two are courses in which an earlier door lost data or a push."""


@pytest.mark.parametrize("archives", [False, True], ids=["commits", "archives"])
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_done_twice_and_the_budget_holds(
    seed: int, archives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = storm(seed, monkeypatch, archives=archives)

    assert found.world.schedules == {}
    for model in MODELS:
        flown = found.flown(model)
        if since := found.removed.get(model):
            assert flown[-1].execution.started < since + HOUR, f"{model}: it was retrained and is gone"
            continue
        assert watched(model, flown[-1].files) == watched(model, found.head), f"{model}: a push was lost"
        on_newest = [flight.execution.started for flight in flown if flight.execution.variables["AsOf"] != LONG_AGO]
        for landed in found.landed[model][-1:]:
            assert on_newest[-1] > landed, f"{model}: the last data was lost"
        trained = [flight.execution for flight in flown if "Retrain" in flight.execution.stages]
        for run in trained:
            assert sum(run.started - DAY < other.started <= run.started for other in trained) <= BUDGET
        cool_down = dt.timedelta(hours=found.world.models[model]["cool_down_hours"])
        for before, run in pairwise(trained):
            assert run.variables["Trigger"] in BY_PEOPLE or run.started - before.started > cool_down - MINUTE
        done = Counter(flight.moves if told["Trigger"] == "push" else told["Reason"] for flight in flown
                       if (told := flight.execution.variables)["Trigger"] in ("push", "schedule")
                       and flight.execution.status == "Succeeded")  # fmt: skip
        assert set(done.values()) <= {1}
