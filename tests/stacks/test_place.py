"""Where the stacks go."""

from __future__ import annotations

from config import Settings, load_settings
from stacks.place import is_apart, place


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
