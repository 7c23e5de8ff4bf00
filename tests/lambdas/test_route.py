"""Which models a push concerns: only what changed in what they watch."""

from __future__ import annotations

import pytest

from lambdas.start_retraining.events import Push, Request
from lambdas.start_retraining.route import Changed, Gone, Model, alarmed, concerned, gone
from tests.lambdas.retraining_world import NEW, NOON, OLD

PUSH = Push(NEW, OLD, NOON)
FLIGHTS = Model("flight_delay", "pushline-flight-delay", ("model_code/flight_delay", "model_code/shared"))
BIKES = Model("bike_demand", "pushline-bike-demand", ("model_code/bike_demand", "model_code/shared"))


def models(changed: Changed) -> list[str]:
    away = gone([FLIGHTS, BIKES], changed, ())
    return [found.model for found in concerned(PUSH, [FLIGHTS, BIKES], changed, away) if isinstance(found, Request)]


def wrote(*paths: str) -> Changed:
    return Changed(present=frozenset(paths))


@pytest.mark.parametrize(("changed", "expected"), [
    (wrote("model_code/flight_delay/train.py"), ["flight_delay"]),
    (wrote("model_code/shared/calendar.py"), ["flight_delay", "bike_demand"]),
    (wrote("model_code/flight_delay_2/train.py", "model_code/bike_demand/model.yaml"), ["bike_demand"]),
    (wrote("README.md", "model_code/flight_delay.py", "contract/verify.py"), []),
    (wrote(), []),
    (Changed(gone=frozenset({"model_code/bike_demand/notes.md"})), ["bike_demand"]),
    (Changed(present=frozenset({"docs/flights.md"}), gone=frozenset({"model_code/flight_delay/notes.md"})),
     ["flight_delay"]),
    (Changed(everything=frozenset({"flight_delay", "bike_demand", "shared"})), ["flight_delay", "bike_demand"]),
    (Changed(everything=frozenset({"flight_delay"})), ["flight_delay"]),
])  # fmt: skip
def test_a_push_concerns_the_models_whose_folders_it_touches(changed: Changed, expected: list[str]) -> None:
    assert models(changed) == expected


def test_a_model_whose_folder_was_renamed_or_removed_is_gone() -> None:
    renamed = Changed(present=frozenset({"model_code/bikes/model.yaml"}),
                      gone=frozenset({"model_code/bike_demand/model.yaml"}))  # fmt: skip
    for changed in (renamed, Changed(everything=frozenset({"flight_delay"}))):
        away = gone([FLIGHTS, BIKES], changed, ())
        assert away == {"bike_demand"}
        assert concerned(PUSH, [FLIGHTS, BIKES], changed, away)[-1] == Gone("bike_demand")


def test_a_gone_model_is_gone_until_its_declaration_is_back() -> None:
    shared = wrote("model_code/shared/calendar.py")
    assert gone([FLIGHTS, BIKES], shared, {"bike_demand", "destroyed_since"}) == {"bike_demand"}
    assert concerned(PUSH, [FLIGHTS, BIKES], shared, {"bike_demand"})[-1] == Gone("bike_demand")
    assert gone([FLIGHTS, BIKES], wrote("model_code/bike_demand/model.yaml"), {"bike_demand"}) == frozenset()
    both = Changed(everything=frozenset({"bike_demand", "flight_delay"}))
    assert gone([FLIGHTS, BIKES], both, {"bike_demand"}) == frozenset()


def test_the_reason_names_the_commit_and_the_first_path() -> None:
    (found,) = concerned(PUSH, [BIKES], wrote("model_code/shared/b.py", "model_code/shared/a.py"), gone=())
    assert isinstance(found, Request)
    assert found.reason == "push aaaaaaaa changes model_code/shared/a.py and 1 more"


def test_an_alarm_is_about_the_longest_name_that_it_begins_with() -> None:
    late = Model("flight_delay_drift", "p", ())
    assert alarmed("flight-delay-drift-drift-quality", [FLIGHTS, late]) == late
    assert alarmed("flight-delay-drift-predictions", [FLIGHTS, late]) == FLIGHTS
    assert alarmed("flight-delay-production-errors", [FLIGHTS, late]) is None
    assert alarmed("night-flight-delay-drift-x", [FLIGHTS]) is None
