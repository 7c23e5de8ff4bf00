"""Waiting for what the rehearsal does in the background."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 600
"""When a test gives up on what takes seconds: a machine that does other things as well is slow, not broken."""
MOST_SECONDS = 0.25
"""Between two looks: what waits longer looks less often, since each look takes the time of what is waited for."""


def until(condition: Callable[[], Any], otherwise: str | Callable[[], object] = "it did not happen") -> Any:
    """Look again and again until the condition holds; what it said then. `otherwise` tells why it never did."""
    deadline, pause = time.monotonic() + PATIENCE_SECONDS, 0.02
    while not (found := condition()):
        assert time.monotonic() < deadline, otherwise() if callable(otherwise) else otherwise
        time.sleep(pause)
        pause = min(1.2 * pause, MOST_SECONDS)
    return found
