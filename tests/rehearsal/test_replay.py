"""A replay judges before data lands, goes on where it was killed, and measures real answers of real endpoints."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rehearsal.replay import frozen, report, rows, story
from rehearsal.replay.answers import Answers, ask, measure
from rehearsal.replay.journal import Journal, Record
from rehearsal.replay.plan import Plan, Refused, Step, plan
from rehearsal.replay.rows import Labelled, labelled, read_folder, write_raw
from rehearsal.sagemaker import SageMaker
from tests.rehearsal.loopback import Loopback, serve
from tests.rehearsal.serving import BUCKET, configure, packed, same_python

QUIET = Console(quiet=True)
THREE = plan("doubles", "2024-01-08", "2024-01-30", "7d")


# -- the story ------------------------------------------------------------------------------------------


class Killed(BaseException):
    """As SIGKILL: nothing catches it."""


class Script:
    """A world that writes down in which order it was used, and can end at any call; its cloud outlives it."""

    metric, maximize = "mae", False

    def __init__(self, dies_at: str = "", cloud: list[tuple[float, Record]] | None = None) -> None:
        self.did: list[str] = []
        self.cloud = [] if cloud is None else cloud
        self._dies_at, self._version = dies_at, 1

    def champion(self) -> Record:
        return self._do("champion", {"version": "1"})

    def rows(self, step: Step) -> Labelled:
        return self._do(f"rows {step.number}", Labelled([{"x": 1}, {"x": 2}], [1.0, 2.0]))

    def live(self, rows: Labelled) -> Answers:
        return self._do("live", Answers([1.0, 2.0], {str(self._version): 2}))

    def frozen(self, first: Record, rows: Labelled) -> Answers:
        return self._do("frozen", Answers([2.0, 3.0], {first["version"]: 2}))

    def ahead(self, step: Step) -> None:
        self._do(f"ahead {step.number}", None)

    def land(self, step: Step, began: float) -> Record:
        self._do(f"put {step.number}", None)
        run = {"trigger": "data", "status": "Succeeded", "execution": f"{step.number}", "stage": None, "reason": None}
        if all(known["execution"] != run["execution"] for _, known in self.cloud):  # what has landed retrains once
            self.cloud.append((time.time(), run))
        time.sleep(0.001)  # what is waited for takes time, or two moments could be one
        ended = time.time()
        found = {"objects": 7, "retrainings": [run for at, run in self.cloud if began <= at < ended], "versions": []}
        return self._do(f"land {step.number}", {**found, "live_after": str(step.number + 1), "ended_at": ended})

    def _do(self, what: str, result: Any) -> Any:
        if what == self._dies_at:
            raise Killed
        self.did.append(what)
        return result


def told(path: Path, world: Script, which: Plan = THREE) -> Record:
    journal = Journal(path, which)
    story.tell(which, journal, world, QUIET)
    return story.told(which, journal, world)


def test_a_steps_data_lands_only_after_its_requests_were_answered(tmp_path: Path) -> None:
    world = Script()
    told(tmp_path / "j.json", world)
    assert [did for did in world.did if not did.startswith("ahead")] == [
        "champion",
        *(did for n in "123" for did in (f"rows {n}", "live", "frozen", f"put {n}", f"land {n}")),
    ]


def test_the_next_steps_requests_are_made_while_a_steps_data_is_worked_on(tmp_path: Path) -> None:
    world = Script()
    told(tmp_path / "j.json", world)
    begun = [world.did.index(f"ahead {n}") for n in "23"]
    assert begun == [world.did.index(f"put {n}") - 1 for n in "12"]
    assert "ahead 4" not in world.did


@pytest.mark.parametrize(
    ("dies_at", "then"),
    [
        ("champion", ["champion", "rows 1", "live", "frozen", "ahead 2", "put 1", "land 1"]),
        ("rows 2", ["rows 2", "live", "frozen", "ahead 3", "put 2", "land 2"]),
        # Its data may be in the lake already: what was answered before stands, and is not asked again.
        ("put 2", ["ahead 3", "put 2", "land 2", "rows 3", "live", "frozen"]),
        # Its data had landed and retrained before: that is told all the same.
        ("land 2", ["ahead 3", "put 2", "land 2", "rows 3", "live", "frozen"]),
    ],
)
def test_killed_and_started_again_it_goes_on_and_comes_to_the_same_report(
    tmp_path: Path, dies_at: str, then: list[str]
) -> None:
    killed = Script(dies_at)
    with pytest.raises(Killed):
        told(tmp_path / "j.json", killed)
    again = Script(cloud=killed.cloud)
    document = told(tmp_path / "j.json", again)
    assert again.did[: len(then)] == then
    straight = told(tmp_path / "straight.json", Script())
    assert _timeless(document) == _timeless(straight)
    assert document["worth"]["mean_gain"] == pytest.approx(1.0)
    assert [[run["execution"] for run in step["retrainings"]] for step in document["steps"]] == [["1"], ["2"], ["3"]]
    assert document["worth"]["retrainings"] == 3


def test_what_retrains_between_two_steps_is_told_with_the_later_one(tmp_path: Path) -> None:
    class Nightly(Script):
        """Its schedule fires while the second step's requests are answered."""

        def live(self, rows: Labelled) -> Answers:
            if "rows 2" in self.did and len(self.cloud) == 1:
                self.cloud.append((time.time(), {"trigger": "schedule", "status": "Succeeded", "execution": "night"}))
            return super().live(rows)

    steps = told(tmp_path / "j.json", Nightly())["steps"]
    assert [[run["execution"] for run in step["retrainings"]] for step in steps] == [["1"], ["night", "2"], ["3"]]


def test_a_finished_replay_can_be_taken_further_and_no_other_takes_its_place(tmp_path: Path) -> None:
    told(tmp_path / "j.json", Script())
    further = Script()
    told(tmp_path / "j.json", further, plan("doubles", "2024-01-08", "2024-02-04", "1w"))
    assert further.did == ["rows 4", "live", "frozen", "put 4", "land 4"]
    with pytest.raises(Refused, match="holds a replay with from 2024-01-08"):
        Journal(tmp_path / "j.json", plan("doubles", "2024-01-09", "2024-02-04", "1w"))


def test_the_report_is_a_table_a_plot_and_a_sentence(tmp_path: Path) -> None:
    document = told(tmp_path / "j.json", Script())
    report.draw(document, tmp_path / "plots" / "doubles.png")
    assert (tmp_path / "plots" / "doubles.png").read_bytes().startswith(b"\x89PNG")
    assert report.table(document).row_count == 3
    assert "+1.0000; better in 3 and worse in 0 of 3 steps" in report.summary(document)
    assert json.loads(json.dumps(document))["schema"] == 1


def test_the_plot_marks_where_another_version_is_live_and_what_retrained() -> None:
    def step(number: int, version: str, rows: int, *triggers: str) -> Record:
        answered = {"metric": 0.7, "versions": {version: rows}}
        runs = [{"trigger": trigger} for trigger in triggers]
        return {"since": f"2024-01-0{number}", "live": answered, "frozen": answered, "retrainings": runs}

    steps = [
        step(1, "1", 60, "data"),
        step(2, "1", 70, "schedule", "data"),
        step(3, "3", 70, "manual"),
        step(4, "3", 80),
    ]
    figure = report.plot({"model": "doubles", "metric": "mae", "frozen_version": "1", "steps": steps})
    (axes,) = figure.axes
    curves, (marked, *others) = axes.lines[:2], [line for line in axes.lines if line.get_linestyle() == ":"]
    assert [list(curve.get_xdata()) for curve in curves] == [[0, 1, 2, 3]] * 2
    assert (list(marked.get_xdata()), others) == ([1.5, 1.5], [])
    assert [text.get_text() for text in axes.texts] == ["version 3"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "live model", "version 1, frozen", "schedule retrained", "data retrained", "manual retrained"]  # fmt: skip


def _timeless(document: Record) -> Record:
    times = ("seconds", "landed_at", "ended_at")
    return {**document, "steps": [{k: v for k, v in step.items() if k not in times} for step in document["steps"]]}


# -- requests -------------------------------------------------------------------------------------------

FEATURES = """
import json, os, sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
from awsglue.utils import getResolvedOptions
given = getResolvedOptions(sys.argv, ["raw", "output", "as_of", "holdout_days"])
days = sorted(p.name.removeprefix("dt=") for p in Path(given["raw"]).glob("dt=*"))
assert days[-1] == given["as_of"], days
rows = [json.loads((Path(given["raw"]) / f"dt={d}" / "x.json").read_text()) for d in days[-int(given["holdout_days"]):]]
out = Path(given["output"]) / "holdout"
out.mkdir(parents=True)
pq.write_table(pa.Table.from_pylist([{**row, "secret": 1} for row in rows]), out / "part.parquet")
"""
SAMPLE_DATA = """
import argparse, datetime as dt, json
from pathlib import Path
parser = argparse.ArgumentParser()
parser.add_argument("--output", type=Path)
parser.add_argument("--through", type=dt.date.fromisoformat)
given = parser.parse_args()
day = dt.date(2024, 1, 1)
while day <= given.through:
    (given.output / f"dt={day}").mkdir(parents=True)
    value = None if day.day == 10 else float(day.day)
    (given.output / f"dt={day}" / "x.json").write_text(json.dumps({"day": str(day), "x": value, "y": 2.0 * day.day}))
    day += dt.timedelta(days=1)
"""
MODEL = """
features: {arguments: {holdout_days: 3}}
evaluation: {metric: mae, goal: minimize, label: y}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository" / "model_code" / "doubles"
    (folder / "tests").mkdir(parents=True)
    for name, content in (("features.py", FEATURES), ("sample_data.py", SAMPLE_DATA), ("model.yaml", MODEL)):
        (folder / name).write_text(content)
    (folder / "tests" / "sample_request.json").write_text('[{"day": "2024-01-01", "x": 1.5}]')
    return tmp_path / "repository"


def test_requests_are_what_the_models_features_hold_out_of_what_had_landed(repository: Path, tmp_path: Path) -> None:
    folder = read_folder(repository, "doubles")
    write_raw(folder, tmp_path / "raw", dt.date(2024, 1, 31))
    step = Step(1, dt.date(2024, 1, 8), dt.date(2024, 1, 11))
    found = labelled(folder, tmp_path / "raw", step, tmp_path / "work")
    assert found.requests == [
        {"day": "2024-01-08", "x": 8.0},
        {"day": "2024-01-09", "x": 9.0},
        {"day": "2024-01-10", "x": None},
        {"day": "2024-01-11", "x": 11.0},
    ]
    assert found.labels == [16.0, 18.0, 20.0, 22.0]


def test_a_model_without_a_sample_request_of_named_fields_is_refused(repository: Path) -> None:
    (repository / "model_code" / "doubles" / "tests" / "sample_request.json").write_text("[[1, 2]]")
    with pytest.raises(Refused, match="sample_request"):
        read_folder(repository, "doubles")
    with pytest.raises(Refused, match=r"no model\.yaml"):
        read_folder(repository, "other")


def test_features_that_fail_say_why(repository: Path, tmp_path: Path) -> None:
    (repository / "model_code" / "doubles" / "features.py").write_text("raise SystemExit('no wind today')")
    folder = read_folder(repository, "doubles")
    write_raw(folder, tmp_path / "raw", dt.date(2024, 1, 3))
    with pytest.raises(Refused, match="no wind today"):
        labelled(folder, tmp_path / "raw", Step(1, dt.date(2024, 1, 2), dt.date(2024, 1, 3)), tmp_path / "work")


# -- answers --------------------------------------------------------------------------------------------

SCRIPT = """
import json, os
def model_fn(model_dir):
    return float(open(os.path.join(model_dir, "factor.txt")).read())
def input_fn(body, content_type):
    return [row["x"] for row in json.loads(body)]
def predict_fn(data, model):
    return [model * value for value in data]
def output_fn(prediction, accept):
    return json.dumps({"predictions": prediction}), "application/json"
"""
PACKAGE = "arn:aws:sagemaker:us-east-1:000000000000:model-package/doubles/"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    same_python(monkeypatch)
    with serve(SageMaker, tmp_path=tmp_path) as running:
        yield running


def test_the_frozen_champion_goes_on_answering_when_another_version_is_live(cloud: Loopback) -> None:
    sagemaker = cloud.client("sagemaker")
    configure(cloud, "one", packed(2, SCRIPT), package=f"{PACKAGE}1")
    sagemaker.create_endpoint(EndpointName="doubles-production", EndpointConfigName="one")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="doubles-production", WaiterConfig={"Delay": 1})
    first = frozen.champion(cloud.client, "doubles-production")
    assert (first["version"], first["container"]["ModelDataUrl"]) == ("1", f"s3://{BUCKET}/one/model.tar.gz")
    url = frozen.serve(cloud.client, "doubles-frozen", first)
    assert frozen.serve(cloud.client, "doubles-frozen", first) == url  # after a restart it is there already
    requests = [{"x": float(number)} for number in range(150)]
    still = ask(url, requests)
    assert still == Answers([2.0 * row["x"] for row in requests], {"1": 150})
    assert measure("mae", [2.0 * row["x"] + 1 for row in requests], still) == pytest.approx(1.0)
    with pytest.raises(Refused, match="refused a request"):
        ask(url, [{"z": 1}])
    frozen.remove(cloud.client, "doubles-frozen")
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="doubles-frozen", WaiterConfig={"Delay": 1})
    assert [e["EndpointName"] for e in sagemaker.list_endpoints()["Endpoints"]] == ["doubles-production"]


def test_a_metric_without_a_value_is_refused_and_not_made_up() -> None:
    with pytest.raises(Refused, match="auc"):
        measure("auc", [1.0, 1.0], Answers([0.1, 0.9], {"1": 2}))
    with pytest.raises(Refused, match="can't measure 'my_score'"):
        story.check_metric("my_score")
    assert rows.HOLDOUT_DAYS == "holdout_days"
