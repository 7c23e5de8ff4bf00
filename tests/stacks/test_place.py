"""Where the stacks go."""

from __future__ import annotations

import pytest

from config import Invalid, Settings, load_settings
from stacks.place import place


def settings(**accounts: str) -> Settings:
    environments = {name: {"account": account, "region": "eu-west-1"} for name, account in accounts.items()}
    return Settings.model_validate({**load_settings().model_dump(), "environments": environments})


def test_without_values_the_templates_take_the_deployers_account() -> None:
    assert (place(load_settings()).account, place(load_settings()).region) == (None, None)


def test_one_account_is_the_place_of_all() -> None:
    one = place(settings(training="111111111111", staging="111111111111", production="111111111111"))
    assert (one.account, one.region) == ("111111111111", "eu-west-1")


def test_several_accounts_are_refused_and_not_quietly_made_one() -> None:
    with pytest.raises(Invalid, match="production 222222222222"):
        place(settings(training="111111111111", staging="111111111111", production="222222222222"))
