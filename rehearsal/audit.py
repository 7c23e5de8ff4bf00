"""Who called what and what was decided: one JSON line per IAM decision in `audit.jsonl`."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

FILE = "audit.jsonl"


class AuditLog:
    """Appends decisions; safe to share between threads, and a line is whole even if the process is killed."""

    def __init__(self, state_dir: Path) -> None:
        state_dir.mkdir(parents=True, exist_ok=True)
        self._file = (state_dir / FILE).open("ab", buffering=0)
        self._lock = threading.Lock()

    def record(
        self, principal: str, action: str, resource: str, decision: str, statement: dict[str, Any] | None = None
    ) -> None:
        """`decision` is Allow, Deny, ImplicitDeny, or the code of a failed authentication."""
        line = {
            "time": time.time(),
            "principal": principal,
            "action": action,
            "resource": resource,
            "decision": decision,
            "statement": statement,
        }
        with self._lock:
            self._file.write(json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        self._file.close()


def read(state_dir: Path, *, denied: bool = False) -> list[dict[str, Any]]:
    """Every decision, oldest first; with `denied`, only the refusals."""
    path = state_dir / FILE
    if not path.exists():
        return []
    with path.open() as lines:
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return [entry for entry in entries if not (denied and entry["decision"] == "Allow")]
