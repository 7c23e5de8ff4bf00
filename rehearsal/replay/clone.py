"""The replay's own clone of the repository: which triggers may retrain, and limits on the clock that counts them.

The door of retraining counts a cool-down and the day's budget on the machine's clock, while a replay's days pass
`time_scale` times as fast. Its clone says so in the same settings that everybody has, and is what is synthesized,
deployed and pushed; the repository itself is not touched.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from rehearsal.replay.plan import DATA, DRIFT, SCHEDULE, Plan, Refused

MOST_A_DAY, LONGEST_SETTLING_MINUTES = 1000, 60
"""What the platform's settings allow at most."""
LEAST_SETTLING_SECONDS = 20
"""Each object of a step starts the door in a container of its own; on two busy cores the last one was heard of after
15 s, and was trained on once more."""
_IDENTITY = ("-c", "user.name=Replay", "-c", "user.email=replay@example.com")
Settings = dict[str, Any]


def make(repository: Path, clone: Path, plan: Plan, time_scale: float) -> list[str]:
    """Clone, unless that was done, and commit the replay's settings; what was changed, in words."""
    if clone.is_dir():
        return []
    unfinished = clone.with_suffix(".partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    git(Path("."), "clone", "--quiet", "--no-hardlinks", f"file://{repository.resolve()}", str(unfinished))
    declaration = unfinished / "model_code" / plan.model / "model.yaml"
    said = _edit(declaration, lambda model: _triggers(model, plan, time_scale))
    said += _edit(unfinished / "config" / "platform.yaml", lambda platform: _limits(platform, time_scale))
    if said:
        git(unfinished, *_IDENTITY, "commit", "--quiet", "--all", "--message", f"replay: {'; '.join(said)}")
    unfinished.rename(clone)
    return said


def synthesize(clone: Path) -> Path:
    """The clone's cloud assembly, by its own app.py as `./pushline synth` runs it; Refused with what that says."""
    tools = str(Path(sys.executable).parent)
    variables = {**os.environ, "PYTHONPATH": str(clone), "PATH": os.pathsep.join((tools, os.environ["PATH"]))}
    output = clone / "cdk.out"
    variables["CDK_OUTDIR"] = str(output)
    finished = subprocess.run([sys.executable, "app.py"], cwd=clone, env=variables, capture_output=True, text=True)
    if finished.returncode:
        raise Refused(f"the templates could not be synthesized: {finished.stderr.strip()[-2000:]}")
    return output


def git(folder: Path, *arguments: str) -> None:
    finished = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    if finished.returncode:
        raise Refused(f"git failed: {finished.stderr.strip()}")


def _edit(path: Path, change: Callable[[Settings], list[str]]) -> list[str]:
    """Change a YAML file, if it is there; comments stay."""
    if not path.is_file():
        return []
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 200, True
    document = yaml.load(path)
    if said := change(document):
        yaml.dump(document, path)
    return said


def _triggers(model: Settings, plan: Plan, time_scale: float) -> list[str]:
    retraining = model.setdefault("retraining", {})
    hours = int(retraining.get("cool_down_hours", 6))
    wanted: Settings = {"cool_down_hours": int(hours / time_scale)}
    wanted |= {} if SCHEDULE in plan.triggers else {"schedule": None}
    wanted |= {} if DATA in plan.triggers else {"on_new_data": False}
    wanted |= {} if DRIFT in plan.triggers else {"on_drift": False}
    return _set(retraining, wanted)


def _limits(platform: Settings, time_scale: float) -> list[str]:
    retraining = platform.setdefault("retraining", {})
    most, settling = int(retraining.get("maximum_per_day", 20)), int(retraining.get("settling_minutes", 15))
    enough = min(LONGEST_SETTLING_MINUTES, math.ceil(LEAST_SETTLING_SECONDS * time_scale / 60))
    most = max(most, min(MOST_A_DAY, int(most * time_scale)))
    return _set(retraining, {"maximum_per_day": most, "settling_minutes": max(settling, enough)})


def _set(section: Settings, wanted: Settings) -> list[str]:
    changed = {key: value for key, value in wanted.items() if key not in section or section[key] != value}
    section.update(changed)
    return [f"retraining.{key} is {json.dumps(value)}" for key, value in changed.items()]
