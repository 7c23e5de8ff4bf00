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
        self,
        principal: str,
        action: str,
        resource: str,
        decision: str,
        *,
        policy: str,
        role: str = "",
        region: str = "",
        context: dict[str, Any] | None = None,
        statement: dict[str, Any] | None = None,
    ) -> None:
        """`decision` is Allow, Deny, ImplicitDeny, or the code of a failed authentication.

        `policy` says whose policy decides: the caller's (`identity`, with the resource's own where it has one), a
        `resource`'s alone or a role's `trust`. `role` is the ARN of the role whose session the principal is; `context`
        holds the condition keys that policies could ask for; `statement` is the one that decided.
        """
        line = {
            "time": round(time.time(), 3),
            "principal": principal,
            "role": role,
            "action": action,
            "resource": resource,
            "region": region,
            "decision": decision,
            "policy": policy,
            "context": context,
            "statement": statement,
        }
        whole = json.dumps({name: value for name, value in line.items() if value}, separators=(",", ":"))
        with self._lock:
            self._file.write(whole.encode() + b"\n")

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
