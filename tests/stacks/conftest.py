"""The empty worlds in which most tests of the reconciler begin: nothing is registered, nothing is live."""

from __future__ import annotations

import pytest

from tests.stacks.release_world import PRODUCTION, STAGING, World


@pytest.fixture
def staging() -> World:
    return World(STAGING)


@pytest.fixture
def production() -> World:
    return World(PRODUCTION)
