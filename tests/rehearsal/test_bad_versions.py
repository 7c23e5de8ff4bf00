"""Versions that fail, released in the whole rehearsal by the synthesized reconciler, alarms and roles: each is stopped
where it first shows, rejected with the reason, and what was live stays live."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rich.console import Console

from rehearsal.assembly import deploy
from rehearsal.traffic import Tally, Traffic
from tests.conftest import Assembly
from tests.rehearsal.daemon import running
from tests.rehearsal.registry import (
    CRASHES,
    FAILS_SOME,
    GROUP,
    HANGS,
    ODD_REQUEST,
    OTHER_SHAPE,
    REQUEST,
    SLOW,
    Registry,
    patient,
)
from tests.rehearsal.waiting import until

TIME_SCALE = 40
BAKE_SECONDS = 600
"""Twice 15 seconds here: much longer than a slow answer takes to come and to ring its alarm."""
SLOWEST_SECONDS = 6.0
"""Below the slow version, and well above what a good one takes on a busy machine."""
STARTUP_SECONDS = 60
REQUESTS = 20
RATES = "Errors5xx|InvocationErrors"
"""Both count an answer 500; which of the two rings first is chance."""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, assembly: Assembly) -> Iterator[Registry]:
    """The synthesized stacks, with one version live that scales between two and three instances."""
    with running(tmp_path_factory.mktemp("bad") / "state", time_scale=TIME_SCALE) as at:
        cdk_out = patient(assembly, tmp_path_factory.mktemp("patient") / "cdk.out", slowest_seconds=SLOWEST_SECONDS,
                          startup_seconds=STARTUP_SECONDS, bake_seconds=BAKE_SECONDS)  # fmt: skip
        deploy(at, cdk_out, Console(quiet=True))
        registry = Registry(at)
        registry.settle(registry.register(instances=(2, 3)), "Approved")
        yield registry


def test_a_version_whose_server_crashes_or_answers_in_another_shape_stops_in_staging(registry: Registry) -> None:
    live = registry.live()
    crashes = registry.register(CRASHES)
    assert "did not pass the ping health check" in registry.rejected(crashes)
    other = registry.register(OTHER_SHAPE)
    assert "The smoke test failed: the answer has another shape" in registry.rejected(other)
    assert {registry.live("staging"), registry.live()} == {live}


def test_a_version_that_never_answers_ping_stops_in_staging(registry: Registry) -> None:
    """Its process lives and is given up at the endpoint config's own limit."""
    live = registry.live()
    reason = registry.rejected(registry.register(HANGS))
    assert "did not pass the ping health check" in reason
    assert {registry.live("staging"), registry.live()} == {live}


def test_an_update_that_cloudformation_rolls_back_rejects_the_version(registry: Registry) -> None:
    """Production's role of stack updates may use the instance types of the guardrails only."""
    live = registry.live()
    refused = registry.register(instance_type="ml.p4d.24xlarge", status="Approved")
    assert "The update of the serving stack rolled back" in registry.rejected(refused)
    assert {registry.live("staging"), registry.live()} == {live}


def test_a_slow_version_that_staging_takes_is_rolled_back_by_productions_own_alarm(registry: Registry) -> None:
    live = registry.live()
    slow, (tally,) = stopped_in_production(registry, SLOW, "Latency", REQUEST)
    assert (answerers(tally), tally.failed, tally.errors[:3]) == ({live, slow}, 0, [])


def test_a_version_that_fails_some_rows_is_rolled_back_by_productions_own_alarm(registry: Registry) -> None:
    live = registry.live()
    version, (odd, usual) = stopped_in_production(registry, FAILS_SOME, RATES, ODD_REQUEST, REQUEST)
    assert (answerers(usual), usual.failed, usual.errors[:3]) == ({live, version}, 0, [])
    assert answerers(odd) == {live}
    assert {error[:3] for error in odd.errors} == {"500"}


def stopped_in_production(registry: Registry, script: str, alarms: str, *payloads: str) -> tuple[int, list[Tally]]:
    """Release what staging takes and production's alarm stops, while it is asked lightly: the version, and what each
    payload got until it was rejected. Then it never answers again, and everything is as it was before."""
    live, targets, policies = registry.live(), registry.targets(), scaling(registry)
    with asking(registry, *payloads) as before:
        version = registry.register(script, instances=(2, 3))
        until(lambda: registry.package(version)["ModelApprovalStatus"] == "Rejected")
    with asking(registry, *payloads) as after:
        reason = registry.rejected(version)
    assert re.search(f"the alarms? {GROUP}-production-({alarms})-.* went to ALARM", reason), reason
    assert [(answerers(tally), tally.failed) for tally in after] == [({live}, 0)] * len(payloads)
    registry.settle(live, "Approved")
    told = registry.parameters()
    assert (told["ModelPackageArn"], told["Autoscaling"]) == (registry.package(live)["ModelPackageArn"], "on")
    assert (registry.targets(), scaling(registry)) == (targets, policies)
    return version, before


@contextmanager
def asking(registry: Registry, *payloads: str) -> Iterator[list[Tally]]:
    """Each payload a few times a second, one after the other, until the block has ended; at least REQUESTS times."""
    loads = [Traffic(registry.url(), payload.encode(), "application/json", per_second=5, workers=1)
             for payload in payloads]  # fmt: skip
    tallies = [load.__enter__() for load in loads]
    try:
        yield tallies
        until(lambda: all(tally.sent >= REQUESTS for tally in tallies))
    finally:
        for load in loads:
            load.__exit__()


def answerers(tally: Tally) -> set[int]:
    return {int(arn.rpartition("/")[2]) for arn in tally.answers}


def scaling(registry: Registry) -> list[dict[str, Any]]:
    client = registry.at.client("application-autoscaling")
    return list(client.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"])


def test_alarms_without_data_stop_no_rollout(registry: Registry) -> None:
    """Nobody asks but the reconciler; before its first sample the new fleet's alarms have nothing to go by."""
    registry.settle(registry.register(instances=(2, 3)), "Approved")
    config = registry.endpoint()["EndpointConfigName"]
    found = registry.at.client("cloudwatch").describe_alarms(AlarmNamePrefix=f"{GROUP}-production-")["MetricAlarms"]
    reasons = [(alarm["StateValue"], alarm["StateReason"]) for alarm in found if alarm["AlarmName"].endswith(config)]
    assert len(reasons) == 4
    assert all(state == "OK" and "1 missing datapoint treated as [notBreaching]" in why for state, why in reasons)


def test_nothing_was_denied_but_what_no_guardrail_allows(registry: Registry) -> None:
    rows = map(json.loads, (registry.at.state_dir / "audit.jsonl").read_text().splitlines())
    assert {row["action"] for row in rows if row["decision"] != "Allow"} <= {"sagemaker:CreateEndpointConfig"}
