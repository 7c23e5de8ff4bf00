"""What a replay has done so far, on disk: killed and started again, it goes on where a step was not finished."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rehearsal.replay.plan import TRIGGERS, Plan, Refused

Record = dict[str, Any]


class Journal:
    """One JSON file per model; every change is written whole before the next thing is done.

    A step's record has `live` and `frozen` once its requests were answered, `landed_at` (epoch seconds) from the moment
    its data begins to land, and `finished` once everything that followed until `ended_at` came to rest.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self._path = path
        self._document = self._read(plan)

    @property
    def steps(self) -> list[Record]:
        return list(self._document["steps"])

    @property
    def frozen(self) -> Record | None:
        """The first champion, once it is live."""
        found: Record | None = self._document["frozen"]
        return found

    def freeze(self, champion: Record) -> None:
        self._document["frozen"] = champion
        self._write()

    def step(self, number: int) -> Record:
        """The record of a step; empty if it has not begun."""
        return next((dict(step) for step in self._document["steps"] if step["step"] == number), {})

    def note(self, number: int, **facts: Any) -> Record:
        """Add facts to the record of a step."""
        record = {"step": number, **self.step(number), **facts}
        others = [step for step in self._document["steps"] if step["step"] != number]
        self._document["steps"] = sorted([*others, record], key=lambda step: step["step"])
        self._write()
        return record

    def _read(self, plan: Plan) -> Record:
        asked = {"model": plan.model, "from": plan.first.isoformat(), "days": plan.days}
        asked["triggers"] = ",".join(plan.triggers)
        if not self._path.is_file():
            return {**asked, "frozen": None, "steps": []}
        found: Record = {"triggers": ",".join(TRIGGERS), **json.loads(self._path.read_text())}
        if begun := {key: found[key] for key in asked if found[key] != asked[key]}:
            told = ", ".join(f"{key} {value}" for key, value in begun.items())
            raise Refused(f"{self._path} holds a replay with {told}; go on with that, or choose another --state-dir")
        return found

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._document, indent=1))
        os.replace(partial, self._path)
