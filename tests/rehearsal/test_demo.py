"""The demo's last scene: a call that was denied makes it fail, whatever else held."""

from __future__ import annotations

import io
from argparse import Namespace
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from rehearsal import demo
from rehearsal.audit import AuditLog


@pytest.fixture
def stage(tmp_path: Path) -> demo.Stage:
    nothing = cast(Any, None)
    at = cast(Any, Namespace(state_dir=tmp_path))
    return demo.Stage(at, tmp_path, Console(file=io.StringIO(), width=200), nothing, nothing)


def test_calls_and_principals_are_counted(stage: demo.Stage, tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    for session in ("one", "another"):
        log.record(
            session, "s3:GetObject", "arn:aws:s3:::b/k", "Allow", policy="identity", role="arn:aws:iam::1:role/r"
        )
    log.close()
    demo._nothing_denied(stage)
    assert "calls 2, principals 1, denied 0" in stage.console.file.getvalue()  # type: ignore[attr-defined]


def test_a_denied_call_is_told_and_does_not_hold(stage: demo.Stage, tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.record("somebody", "s3:GetObject", "arn:aws:s3:::b/k", "ImplicitDeny", policy="identity")
    log.close()
    with pytest.raises(demo.DoesNotHold, match="1 calls were denied: somebody s3:GetObject arn:aws:s3:::b/k"):
        demo._nothing_denied(stage)
