"""A push that is no good stops where it should, says why and what to do, and what is live stays live."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import pytest

from tests.rehearsal.scientist import CUSTOMERS, Document, Scientist

FOLDER = f"model_code/{CUSTOMERS}"
LAST_DAY = "dt=2013-01-12"
ENOUGH = "if len(rows) > 400:  # more than the model's own tests have\n        "


@dataclass(frozen=True)
class Live:
    """The new model, and the commit whose version is live."""

    person: Scientist
    commit: str

    def pushed_badly(self) -> Failure:
        """Push what is in the clone: it must fail, and leave alone what is live."""
        execution = self.person.pushed("This is no good", CUSTOMERS, code=1)
        assert execution["status"] == "Failed"
        answer = self.person.live(CUSTOMERS)
        assert (answer["version"], answer["commit"]) == (1, self.commit)
        return Failure(execution, execution["told"], self.person.verb("logs", execution["execution"]))


@dataclass(frozen=True)
class Failure:
    execution: Document
    told: str
    """By `wait`."""
    log: str

    def says(self, *texts: str) -> None:
        """`status`, `wait` and `logs` all say it."""
        for text in texts:
            for place in (self.execution["reason"], self.told, self.log):
                assert text in place, f"{text!r} is not in:\n{place}"


@pytest.fixture
def live(customers: Scientist) -> Live:
    """With the good files in the clone again."""
    commit = str(customers.live(CUSTOMERS)["commit"])
    customers.restore(commit)
    return Live(customers, commit)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_a_syntax_error_and_an_unknown_key_stop_at_verify(live: Live) -> None:
    folder = live.person.folder(CUSTOMERS)
    replace(folder / "train.py", "def main() -> None:", "def main( -> None:")
    replace(folder / "model.yaml", "\ntraining: {", "\ntraining: {instance_typ: ml.m5.large, ")
    failure = live.pushed_badly()
    assert failure.execution["stage"] == "Verify"
    line = next(n for n, text in enumerate((folder / "train.py").read_text().splitlines(), 1) if "main( ->" in text)
    failure.says(f"{FOLDER}/train.py:{line}", "is not valid Python", f"{FOLDER}/model.yaml:5", "training.instance_typ")


def test_a_forbidden_instance_type_and_a_missing_file_stop_at_verify(live: Live) -> None:
    folder = live.person.folder(CUSTOMERS)
    live.person.configure({"training.instance_type": "ml.p5.48xlarge"}, CUSTOMERS)
    (folder / "inference.py").unlink()
    failure = live.pushed_badly()
    assert failure.execution["stage"] == "Verify"
    failure.says(f"{FOLDER}/model.yaml:5", "training.instance_type", "found 'ml.p5.48xlarge'; allowed: ml.m5.large",
                 "config/platform.yaml", "serving.script", "'inference.py', which is missing")  # fmt: skip


def test_a_failing_model_test_stops_at_verify(live: Live) -> None:
    replace(live.person.folder(CUSTOMERS) / "tests" / "test_model.py", "assert keen > idle", "assert keen < idle")
    failure = live.pushed_badly()
    assert failure.execution["stage"] == "Verify"
    failure.says(f"{FOLDER}/tests", "test_a_keen_customer_is_likelier_to_buy", "assert keen < idle")


def test_bad_raw_data_stop_at_the_features(live: Live) -> None:
    s3, place = live.person.at.client("s3"), raw_data(live)
    key = {"Bucket": place[0], "Key": f"{place[1]}/{LAST_DAY}/late.parquet"}
    s3.put_object(**key, Body=b"PAR1 this was cut off")
    replace(live.person.folder(CUSTOMERS) / "model.yaml", "replace data", "exchange data")
    try:
        failure = live.pushed_badly()
    finally:
        s3.delete_object(**key)
    assert failure.execution["stage"] == "Retrain"
    failure.says(
        "BuildFeatures",
        "late.parquet is not a Parquet file",
        "customers-features",
        "correct features.py or the raw data",
    )


def test_training_that_raises_stops_there(live: Live) -> None:
    train = live.person.folder(CUSTOMERS) / "train.py"
    raising = f"    {ENOUGH}raise RuntimeError('the shop was closed')\n    data = xgb"
    replace(train, "    data = xgb", raising)
    failure = live.pushed_badly()
    assert failure.execution["stage"] == "Retrain"
    failure.says("Train", "RuntimeError: the shop was closed", "/aws/sagemaker/TrainingJobs", "correct train.py")
    assert registered(live) == [1]


def test_a_metric_that_is_no_number_stops_at_training(live: Live) -> None:
    replace(live.person.folder(CUSTOMERS) / "train.py", "    model_dir = Path",
            f"    {ENOUGH}metrics['train_log_loss'] = float('nan')\n    model_dir = Path")  # fmt: skip
    failure = live.pushed_badly()
    assert failure.execution["stage"] == "Retrain"
    failure.says("Train", "train_log_loss", "nan", "a finite number", "correct train.py")
    assert registered(live) == [1]


def test_nothing_was_denied(customers: Scientist) -> None:
    assert json.loads(customers.verb("audit", "--denied", "--json")) == []


def raw_data(live: Live) -> tuple[str, str]:
    stacks = live.person.at.client("cloudformation").describe_stacks(StackName="Customers-Training")["Stacks"]
    address = next(output["OutputValue"] for output in stacks[0]["Outputs"] if output["OutputKey"] == "RawData")
    place = urlparse(address)
    return place.netloc, place.path.strip("/")


def registered(live: Live) -> list[int]:
    return [row["version"] for row in live.person.status()["model_packages"]]
