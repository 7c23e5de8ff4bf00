"""Which networks config can name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from config import load_settings
from tests.config.test_settings import problems, settings_file

VPC = "vpc-0123456789abcdef0"
WHOLE: dict[str, Any] = {"vpc": VPC, "subnets": ["subnet-0123456789abcdef0"], "availability_zone": "eu-west-1a",
                         "security_groups": ["sg-0123456789abcdef0"]}  # fmt: skip


def test_every_environment_has_a_network_of_its_own_unless_config_says_otherwise() -> None:
    networks = load_settings().network
    assert [networks.of(name).vpc for name in ("training", "staging", "production")] == ["new"] * 3


def test_an_existing_vpc_is_named_whole(tmp_path: Path) -> None:
    networks = load_settings(settings_file(tmp_path, network={"training": WHOLE})).network
    assert networks.training.subnets == ("subnet-0123456789abcdef0",)
    assert networks.staging.vpc == "new"


@pytest.mark.parametrize(("asked", "said"), [
    ({"vpc": VPC, "subnets": WHOLE["subnets"]}, "without security_groups, availability_zone; allowed: an existing VPC"),
    ({"vpc": "none", "subnets": WHOLE["subnets"]}, "found subnets with vpc: none; allowed: only with the id of a VPC"),
    ({"vpc": "default"}, "network.training.vpc: found 'default'; allowed: "),
    ({**WHOLE, "subnets": ["my-subnet"]}, "network.training.subnets[0]: found 'my-subnet'; allowed: "),
    ({**WHOLE, "security_groups": WHOLE["security_groups"] * 6}, "security_groups: found"),
    ({"vpc": "new", "nat": True}, "network.training.nat: found an unknown key; allowed: availability_zone"),
])  # fmt: skip
def test_half_a_network_is_refused_with_what_is_missing(tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    assert said in problems(settings_file(tmp_path, network={"training": asked}))
