"""Where the stacks go."""

from __future__ import annotations

import pytest

from config import Invalid, Settings, load_settings
from contract import load_models
from stacks.crossing import refuse_what_can_not_cross
from stacks.place import is_apart, place
from tests.conftest import ROOT


def settings(**accounts: str) -> Settings:
    environments = {name: {"account": account, "region": "eu-west-1"} for name, account in accounts.items()}
    return Settings.model_validate({**load_settings().model_dump(), "environments": environments})


def test_without_values_the_templates_take_the_deployers_account() -> None:
    found = place(load_settings(), "production")
    assert (found.account, found.region) == (None, None)
    assert not is_apart(load_settings(), "production")


def test_one_account_is_the_place_of_all() -> None:
    one = settings(training="111111111111", staging="111111111111", production="111111111111")
    assert {place(one, name).account for name in ("training", "staging", "production")} == {"111111111111"}
    assert not is_apart(one, "production")


def test_only_an_account_other_than_trainings_is_apart() -> None:
    two = settings(training="111111111111", staging="111111111111", production="222222222222")
    assert (place(two, "production").account, place(two, "production").region) == ("222222222222", "eu-west-1")
    assert [is_apart(two, name) for name in ("training", "staging", "production")] == [False, False, True]


def test_a_shadow_across_accounts_is_refused_by_name() -> None:
    shipped = load_settings()
    models = [model.model_copy(update={"serving": model.serving.model_copy(update={"shadow": True})})
              for model in load_models(ROOT, shipped.guardrails)]  # fmt: skip
    apart = settings(training="111111111111", staging="222222222222", production="333333333333")
    refuse_what_can_not_cross(shipped, models)
    with pytest.raises(Invalid) as refused:
        refuse_what_can_not_cross(apart, models)
    assert len(refused.value.problems) == len(models)
    assert "model_code/flight_delay/model.yaml: serving.shadow: found true" in str(refused.value)
