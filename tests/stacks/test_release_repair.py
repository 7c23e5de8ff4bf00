"""A stack or an endpoint that is not as a release leaves it: it is waited for, made anew or told, no version blamed."""

from __future__ import annotations

import pytest

from tests.stacks.release_world import World


def test_an_endpoint_deleted_by_hand_is_made_anew(production: World) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.endpoint = None

    execution = production.reconcile()

    assert execution.status == "SUCCEEDED", execution.cause
    assert (production.live_version, len(production.updates)) == (1, 2)


def test_an_endpoint_changed_by_hand_is_told_and_the_version_not_blamed(production: World) -> None:
    production.register(1, "Approved")
    production.register(2, "Approved")
    production.live(1)
    production.parameters = production.wanted_parameters(2)

    execution = production.reconcile()

    assert execution.error == "ReleaseStopped"
    assert (production.status(2), production.live_version, len(production.told)) == ("Approved", 1, 1)


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED", "DELETE_FAILED"])
def test_a_stack_that_can_not_be_updated_is_told(production: World, status: str) -> None:
    production.register(1, "Approved")
    production.stack_status = status

    execution = production.reconcile()

    assert status in execution.cause
    assert (production.status(1), len(production.told)) == ("Approved", 1)


def test_an_endpoint_that_is_changing_is_waited_for(production: World) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.endpoint_status = "SystemUpdating"

    def settle() -> None:
        production.endpoint_status = "InService"

    production.interrupt["describeEndpoint"] = lambda: production.interrupt.update(listModelPackages=settle)

    assert production.reconcile().status == "SUCCEEDED"
    assert production.updates == []


@pytest.mark.parametrize("broken", [set(), {0}])
def test_a_failed_endpoint_that_nobody_is_releasing_is_made_anew_or_told(production: World, broken: set[int]) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.endpoint_status, production.broken = "Failed", broken
    production.interrupt["updateStack"] = lambda: setattr(production, "endpoint_status", "InService")

    execution = production.reconcile()

    assert execution.status == ("FAILED" if broken else "SUCCEEDED"), execution.cause
    assert (production.live_version, production.status(1)) == (1, "Approved")
