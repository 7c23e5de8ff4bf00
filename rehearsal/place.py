"""The accounts and regions that are rehearsed, as the deployed assembly names them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """An account and region; the assembly leaves them open unless the configuration names them."""

    account: str
    region: str

    def fill(self, text: str) -> str:
        return (
            text.replace("${AWS::AccountId}", self.account)
            .replace("${AWS::Region}", self.region)
            .replace("${AWS::Partition}", "aws")
        )


def remember(state_dir: Path, deployed: Iterable[Place]) -> None:
    """Keep where something was deployed to, training's place first; older places stay known."""
    places = dict.fromkeys([*deployed, *recall(state_dir)])
    path = state_dir / "places.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps([astuple(place) for place in places]))
    partial.replace(path)


def recall(state_dir: Path) -> list[Place]:
    """Where something was deployed to, training's place first."""
    try:
        return [Place(*place) for place in json.loads((state_dir / "places.json").read_text())]
    except FileNotFoundError:
        return []
