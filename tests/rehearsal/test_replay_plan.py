"""A replay's plan, and its own clone's settings: what may retrain, and limits on the clock that counts them."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML

from config import load_settings
from contract import load_models
from rehearsal.landscape import ModelParts
from rehearsal.replay import clone, happened, stage
from rehearsal.replay.journal import Journal
from rehearsal.replay.plan import Plan, Refused, plan
from rehearsal.replay.report import table

ROOT = Path(__file__).resolve().parents[2]
MODEL, PLATFORM = "model_code/flight_delay/model.yaml", "config/platform.yaml"


def test_a_plan_has_whole_steps_and_the_first_model_has_what_was_before() -> None:
    three = plan("doubles", "2024-01-08", "2024-01-30", "7d")
    assert [(step.number, f"{step.since}", f"{step.through}", step.days) for step in three.steps()] == [
        (1, "2024-01-08", "2024-01-14", 7),
        (2, "2024-01-15", "2024-01-21", 7),
        (3, "2024-01-22", "2024-01-28", 7),
    ]
    assert three.eve == dt.date(2024, 1, 7)


@pytest.mark.parametrize(
    ("first", "last", "step", "told"),
    [
        ("tomorrow", "2024-13-01", "0d", ("--from", "--to", "--step")),
        ("2024-01-01", "2024-01-05", "1w", ("no whole step of 7 days",)),
    ],
)
def test_a_plan_that_makes_no_sense_names_all_that_is_wrong(
    first: str, last: str, step: str, told: tuple[str, ...]
) -> None:
    with pytest.raises(Refused) as refused:
        plan("m", first, last, step)
    assert all(word in str(refused.value) for word in told)


def asked(triggers: str = "schedule,data,drift") -> Plan:
    return plan("flight_delay", "2013-03-04", "2013-03-31", "7d", triggers)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The shipped model and settings, as somebody's repository."""
    made = tmp_path / "repository"
    (made / "config").mkdir(parents=True)
    shutil.copy(ROOT / PLATFORM, made / PLATFORM)
    shutil.copytree(ROOT / "model_code" / "flight_delay", made / "model_code" / "flight_delay")
    (made / "model_code" / "shared").mkdir()
    (made / "model_code" / "shared" / "__init__.py").touch()
    for command in (("init", "--quiet"), ("add", "--all"), (*clone._IDENTITY, "commit", "--quiet", "--message", "all")):
        clone.git(made, *command)
    return made


def read(folder: Path, path: str) -> dict[str, Any]:
    return dict(YAML(typ="safe").load(folder / path)["retraining"])


def output(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_limits_are_converted_to_the_clock_that_counts_them(repository: Path, tmp_path: Path) -> None:
    said = clone.make(repository, tmp_path / "clone", asked(), 100)
    model, platform = (read(tmp_path / "clone", path) for path in (MODEL, PLATFORM))
    assert (model["cool_down_hours"], platform["maximum_per_day"], platform["settling_minutes"]) == (0, 1000, 34)
    assert all(model[name] for name in ("schedule", "on_new_data", "on_drift"))
    assert said == [
        "retraining.cool_down_hours is 0",
        "retraining.maximum_per_day is 1000",
        "retraining.settling_minutes is 34",
    ]
    assert output(tmp_path / "clone", "log", "--format=%s", "-1").strip() == f"replay: {'; '.join(said)}"
    assert [output(folder, "status", "--porcelain") for folder in (tmp_path / "clone", repository)] == ["", ""]


def test_at_the_worlds_own_speed_nothing_is_changed(repository: Path, tmp_path: Path) -> None:
    assert clone.make(repository, tmp_path / "clone", asked(), 1) == []
    assert output(tmp_path / "clone", "rev-parse", "HEAD") == output(repository, "rev-parse", "HEAD")


def test_only_the_asked_triggers_may_retrain_and_the_settings_stay_valid(repository: Path, tmp_path: Path) -> None:
    clone.make(repository, tmp_path / "clone", asked("drift"), 200)
    settings = load_settings(tmp_path / "clone" / PLATFORM)
    [model] = load_models(tmp_path / "clone", settings.guardrails)
    assert settings.retraining.settling_minutes == 60  # no longer than the settings allow
    given = model.retraining
    assert (given.schedule, given.on_new_data, given.on_drift) == (None, False, True)
    assert "# train on days 60 to 8 before as_of" in (tmp_path / "clone" / MODEL).read_text()


def test_a_clone_is_made_once_and_whole(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "clone.partial" / "half").mkdir(parents=True)  # as a killed start leaves it
    assert clone.make(repository, tmp_path / "clone", asked(), 200)
    assert not (tmp_path / "clone" / "half").exists()
    assert clone.make(repository, tmp_path / "clone", asked("drift"), 200) == []


def test_other_triggers_need_another_state_directory(tmp_path: Path) -> None:
    Journal(tmp_path / "j.json", asked("drift")).freeze({"version": "1"})
    with pytest.raises(Refused, match="triggers drift"):
        Journal(tmp_path / "j.json", asked())
    for wrong in ("", "weather", "drift,weather", "drift,drift"):
        with pytest.raises(Refused, match="--triggers"):
            asked(wrong)


def test_a_replay_waits_for_monitoring_where_new_data_does_not_retrain() -> None:
    waits = {given: asked(given).waits_for_monitoring for given in ("drift", "schedule,drift", "data", "data,drift")}
    assert waits == {"drift": True, "schedule,drift": True, "data": False, "data,drift": False}


def test_monitoring_counts_from_the_moment_on_and_when_it_has_ended() -> None:
    def execution(minute: int, status: str) -> dict[str, Any]:
        return {"startDate": dt.datetime(2026, 1, 1, 12, minute, tzinfo=dt.UTC), "status": status}

    class StepFunctions:
        rows = (execution(0, "SUCCEEDED"), execution(20, "RUNNING"))

        def list_executions(self, **_: Any) -> dict[str, Any]:
            return {"executions": list(self.rows)}

    states, parts = StepFunctions(), ModelParts("m", monitor="arn")
    moment = dt.datetime(2026, 1, 1, 12, 10, tzinfo=dt.UTC).timestamp()
    assert happened.monitored(lambda *_: states, parts, moment) is None
    states.rows = (execution(40, "SUCCEEDED"), execution(20, "FAILED"), execution(0, "SUCCEEDED"))
    assert happened.monitored(lambda *_: states, parts, moment) == "FAILED"


def test_the_first_push_waits_until_the_door_knows_of_all_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look finds more of the events decided; other triggers' do not count."""
    counts = iter([3, 9, 10, 99])
    looks: list[int] = []

    def triggers(*_: Any) -> list[dict[str, Any]]:
        looks.append(next(counts))
        return [{"trigger": "data", "count": looks[-1]}, {"trigger": "schedule", "count": 50}]

    monkeypatch.setattr(stage, "triggers", triggers)
    monkeypatch.setattr(stage, "POLL_SECONDS", 0.0)
    stage._heard(SimpleNamespace(client_of=None, landscape=SimpleNamespace(start_retraining_log="log")), 10)
    assert looks == [3, 9, 10]


def test_the_table_tells_how_a_steps_monitoring_ended() -> None:
    side = {"metric": 0.7, "versions": {"1": 9}}
    step = {"since": "a", "through": "b", "rows": 9, "live": side, "frozen": side, "gain": 0.0, "monitoring": "FAILED"}
    told = {"model": "m", "metric": "auc", "frozen_version": "1"}
    drawn = table({**told, "steps": [{**step, "retrainings": [], "versions": []}]})
    assert list(drawn.columns[-1].cells) == ["monitoring failed"]
