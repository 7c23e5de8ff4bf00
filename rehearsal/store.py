"""State of the rehearsal's own services: JSON documents in one SQLite file that survives being killed."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Document = dict[str, Any]


class Store:
    """Documents by (kind, key), written durably before a call returns.

    `kind` names a table-like collection ("sagemaker/training-job"), `key` is unique within it
    (use ids or ARNs, which carry account and region). Documents are JSON objects; times are
    floats, seconds since the epoch. Safe to share between threads.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS documents (number INTEGER PRIMARY KEY AUTOINCREMENT,"
            " kind TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (kind, key))"
        )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside are kept together or not at all; other threads wait. Re-entrant."""
        with self._lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def get(self, kind: str, key: str) -> Document | None:
        with self._lock:
            row = self._db.execute("SELECT body FROM documents WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def put(self, kind: str, key: str, document: Document) -> None:
        """Insert or replace; a replaced document keeps its place in the order of `list`."""
        body = json.dumps(document)
        with self._lock:
            self._db.execute(
                "INSERT INTO documents (kind, key, body) VALUES (?, ?, ?)"
                " ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body",
                (kind, key, body),
            )

    def update(self, kind: str, key: str, change: Callable[[Document], Any]) -> Document:
        """Read, let `change` edit the document in place, write, in one transaction; KeyError if absent."""
        with self.transaction():
            document = self.get(kind, key)
            if document is None:
                raise KeyError(f"{kind} {key}")
            change(document)
            self.put(kind, key, document)
        return document

    def delete(self, kind: str, key: str) -> bool:
        with self._lock:
            return self._db.execute("DELETE FROM documents WHERE kind = ? AND key = ?", (kind, key)).rowcount > 0

    def list(self, kind: str) -> list[tuple[str, Document]]:
        """Every (key, document) of a kind, oldest first."""
        with self._lock:
            rows = self._db.execute(
                "SELECT key, body FROM documents WHERE kind = ? ORDER BY number", (kind,)
            ).fetchall()
        return [(key, json.loads(body)) for key, body in rows]

    def next_number(self, counter: str) -> int:
        """1, 2, 3, … per counter name, never the same twice, also across restarts."""
        with self.transaction():
            current = self.get("counter", counter) or {"value": 0}
            value = int(current["value"]) + 1
            self.put("counter", counter, {"value": value})
        return value

    def close(self) -> None:
        with self._lock:
            self._db.close()
