"""The entry module as the image runs it: a bundle is unpacked and its program is started with the SM_* variables."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from config import Guardrails
from contract import load_model
from contract.bundle import pack

WRITES_ALL = """
import json, os
from pathlib import Path
place = Path(os.environ["SM_MODEL_DIR"])
(place / "model.txt").write_text("0.25")
(place / "metrics.json").write_text(json.dumps({"loss": 0.5}))
"""
CONSTANT = """
from pathlib import Path
import numpy as np
def model_fn(model_dir): return float((Path(model_dir) / "model.txt").read_text())
def predict_fn(data, model): return np.full(len(data), model) + 0.1 * (data["visits"] > 3)
"""
EVALUATION = {"rows": 2, "challenger": {"auc": 0.5}, "champion": None}


@dataclass(frozen=True)
class Job:
    """A job's folder: the unpacked bundle beside inputs, outputs and the model."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def run(self, *arguments: str, root: Path | None = None) -> subprocess.CompletedProcess[str]:
        entry = (root or self.folder / "code") / "pushline_entry.py"
        variables = {
            "PATH": os.environ["PATH"],
            "SM_MODEL_DIR": str(self.model),
            "SM_CHANNEL_TRAIN": str(self.folder / "train"),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            [sys.executable, str(entry), *arguments],
            capture_output=True, text=True, env=variables, cwd=self.folder, timeout=120,
        )  # fmt: skip

    def pack_model(self, side: str) -> None:
        place = self.folder / "input" / side
        place.mkdir(parents=True)
        with tarfile.open(place / "model.tar.gz", "w:gz") as archive:
            archive.add(self.model, arcname=".")


def job(
    repository: Path,
    guardrails: Guardrails,
    folder: Path,
    files: dict[str, str],
    wheels: dict[str, bytes] | None = None,
) -> Job:
    """A job on the model `buy` with some of its files replaced."""
    for name, content in files.items():
        (repository / "model_code" / "buy" / name).write_text(content)
    bundle = pack(repository, load_model(repository, "buy", guardrails), guardrails, wheels)
    with tarfile.open(fileobj=io.BytesIO(bundle.sourcedir)) as archive:
        archive.extractall(folder / "code", filter="data")
    (folder / "model").mkdir()
    return Job(folder)


def rows(count: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"age": [30] * count, "visits": range(count), "minutes": [1.0] * count, "bought": [0, 1] * (count // 2)}
    )


def write_rows(folder: Path, count: int = 8) -> None:
    folder.mkdir(parents=True)
    rows(count // 2).to_parquet(folder / "a.parquet")
    rows(count // 2).to_parquet(folder / "b.parquet")


def test_training_puts_the_code_beside_the_model(repository: Path, guardrails: Guardrails, tmp_path: Path) -> None:
    training = job(repository, guardrails, tmp_path / "job", {"train.py": WRITES_ALL})
    done = training.run("--num_round", "3")
    assert done.returncode == 0, done.stderr
    assert "trained buy, with the metrics loss" in done.stdout
    listed = json.loads((training.model / "code" / "pushline.json").read_text())["files"]
    there = [path.relative_to(training.model / "code").as_posix() for path in (training.model / "code").rglob("*.*")]
    assert sorted(there) == listed


def test_train_py_gets_its_hyperparameters_and_is_the_main_module(
    repository: Path, guardrails: Guardrails, tmp_path: Path
) -> None:
    says = "import sys\nprint(__name__, sys.argv[1:])\n" + WRITES_ALL
    done = job(repository, guardrails, tmp_path / "job", {"train.py": says}).run("--eta", "0.1")
    assert "__main__ ['--eta', '0.1']" in done.stdout


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ("", "train.py wrote no metrics.json"),
        (WRITES_ALL.replace('{"loss": 0.5}', '{"loss": float("nan")}'), "metrics.json has loss=nan; allowed: a finite"),
        (WRITES_ALL.replace('{"loss": 0.5}', '{"loss": "good"}'), "metrics.json has loss='good'; allowed: a finite"),
        (WRITES_ALL.replace('{"loss": 0.5}', "{}"), "metrics.json holds no metrics"),
        (WRITES_ALL.replace('"0.25"', '""'), "train.py wrote no model into SM_MODEL_DIR"),
        (WRITES_ALL + '(place / "code").mkdir()\n', "train.py wrote SM_MODEL_DIR/code"),
        (WRITES_ALL + 'raise RuntimeError("the data is odd")\n', "RuntimeError: the data is odd"),
        (WRITES_ALL + 'raise SystemExit("gave up")\n', "gave up"),
    ],
)
def test_a_training_that_broke_the_contract_fails_and_says_why(
    repository: Path, guardrails: Guardrails, tmp_path: Path, train: str, said: str
) -> None:
    training = job(repository, guardrails, tmp_path / "job", {"train.py": train})
    done = training.run()
    assert done.returncode == 1
    assert said in done.stderr
    assert not (training.model / "code" / "pushline.json").exists()


def test_the_exit_code_of_train_py_is_kept(repository: Path, guardrails: Guardrails, tmp_path: Path) -> None:
    training = job(repository, guardrails, tmp_path / "job", {"train.py": WRITES_ALL + "raise SystemExit(37)\n"})
    assert training.run().returncode == 37


def test_each_model_is_scored_by_the_code_it_was_trained_with(
    repository: Path, guardrails: Guardrails, tmp_path: Path
) -> None:
    old = job(repository, guardrails, tmp_path / "old", {"train.py": WRITES_ALL, "inference.py": CONSTANT})
    assert old.run().returncode == 0
    changed = {"inference.py": CONSTANT.replace("0.1 *", "-0.1 *")}
    new = job(repository, guardrails, tmp_path / "new", changed)
    assert new.run().returncode == 0
    new.pack_model("challenger")
    old.pack_model("champion")
    (old.folder / "input" / "champion").rename(new.folder / "input" / "champion")
    write_rows(new.folder / "input" / "holdout")
    done = new.run("evaluate")
    assert done.returncode == 0, done.stderr
    found = json.loads((new.folder / "output" / "evaluation.json").read_text())
    assert found["rows"] == 8
    assert found["champion"]["auc"] + found["challenger"]["auc"] == pytest.approx(1.0)
    assert (new.folder / "output" / "roc.png").stat().st_size > 1000


def test_an_evaluation_records_what_the_challenger_answers_to_its_sample_request(
    repository: Path, guardrails: Guardrails, tmp_path: Path
) -> None:
    chatty = CONSTANT + "print('loading')\n"
    trained = job(repository, guardrails, tmp_path / "job", {"train.py": WRITES_ALL, "inference.py": chatty})
    assert trained.run().returncode == 0
    trained.pack_model("challenger")
    write_rows(trained.folder / "input" / "holdout")
    samples = trained.folder / "input" / "sample"
    samples.mkdir()
    (samples / "sample_request-ab12.csv").write_text("age,visits,minutes\n30,9,1.0\n30,1,1.0\n")

    done = trained.run("evaluate")

    assert done.returncode == 0, done.stderr
    answer = json.loads((trained.folder / "output" / "sample_answer.json").read_text())
    assert answer["predictions"][0] - answer["predictions"][1] == pytest.approx(0.1)


def test_a_challenger_that_can_not_answer_its_sample_request_fails_the_evaluation(
    repository: Path, guardrails: Guardrails, tmp_path: Path
) -> None:
    trained = job(repository, guardrails, tmp_path / "job", {"train.py": WRITES_ALL, "inference.py": CONSTANT})
    assert trained.run().returncode == 0
    trained.pack_model("challenger")
    write_rows(trained.folder / "input" / "holdout")
    samples = trained.folder / "input" / "sample"
    samples.mkdir()
    (samples / "sample_request-ab12.json").write_text("{not json")

    done = trained.run("evaluate")

    assert done.returncode != 0
    assert "could not answer its sample request" in done.stderr


def test_the_first_model_has_no_champion(repository: Path, guardrails: Guardrails, tmp_path: Path) -> None:
    first = job(repository, guardrails, tmp_path / "job", {"train.py": WRITES_ALL, "inference.py": CONSTANT})
    assert first.run().returncode == 0
    first.pack_model("challenger")
    write_rows(first.folder / "input" / "holdout")
    assert first.run("evaluate").returncode == 0
    assert json.loads((first.folder / "output" / "evaluation.json").read_text())["champion"] is None


def test_a_regression_is_measured_when_the_metric_is_one(
    repository: Path, guardrails: Guardrails, tmp_path: Path
) -> None:
    path = repository / "model_code" / "buy" / "model.yaml"
    path.write_text(path.read_text().replace("metric: auc", "metric: rmse"))
    files = {"train.py": WRITES_ALL, "inference.py": CONSTANT}
    first = job(repository, guardrails, tmp_path / "job", files)
    assert first.run().returncode == 0
    first.pack_model("challenger")
    write_rows(first.folder / "input" / "holdout")
    assert first.run("evaluate").returncode == 0
    found = json.loads((first.folder / "output" / "evaluation.json").read_text())["challenger"]
    assert set(found) == {"mae", "mse", "rmse", "r2"}


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        (None, "evaluate.py wrote no evaluation.json"),
        (EVALUATION | {"rows": 0}, "evaluation.json has rows 0"),
        (EVALUATION | {"challenger": {"auc": float("inf")}}, "has auc=inf; allowed: a finite number"),
        (EVALUATION | {"challenger": {"loss": 1.0}}, "evaluation.json's challenger lacks auc"),
        (EVALUATION | {"champion": {"auc": 0.1}}, "evaluation.json has a champion, and there is none"),
        ([], "evaluation.json holds list; allowed: an object"),
    ],
)
def test_an_evaluation_that_broke_the_contract_fails_and_says_why(
    repository: Path, guardrails: Guardrails, tmp_path: Path, evaluation: object, said: str
) -> None:
    writes = "import sys, pathlib\nplace = pathlib.Path(sys.argv[sys.argv.index('--output') + 1])\n"
    if evaluation is not None:
        writes += f"(place / 'evaluation.json').write_text({json.dumps(evaluation)!r})\n"
    broken = job(repository, guardrails, tmp_path / "job", {"train.py": WRITES_ALL, "evaluate.py": writes})
    assert broken.run().returncode == 0
    broken.pack_model("challenger")
    done = broken.run("evaluate")
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.parametrize("member", ["../../escaped", "/tmp/pushline-escaped"])
def test_a_model_archive_that_leaves_its_folder_is_refused(
    repository: Path, guardrails: Guardrails, tmp_path: Path, member: str
) -> None:
    hostile = job(repository, guardrails, tmp_path / "job", {"train.py": WRITES_ALL})
    (hostile.folder / "input" / "challenger").mkdir(parents=True)
    with tarfile.open(hostile.folder / "input" / "challenger" / "model.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo(member), io.BytesIO())
    done = hostile.run("evaluate")
    assert done.returncode == 1
    assert "is not an ordinary file inside it" in done.stderr
    assert not (tmp_path / "escaped").exists()


def test_a_model_archive_with_a_link_is_refused(repository: Path, guardrails: Guardrails, tmp_path: Path) -> None:
    hostile = job(repository, guardrails, tmp_path / "job", {"train.py": WRITES_ALL})
    (hostile.folder / "input" / "challenger").mkdir(parents=True)
    link = tarfile.TarInfo("passwords")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(hostile.folder / "input" / "challenger" / "model.tar.gz", "w:gz") as archive:
        archive.addfile(link)
    assert "'passwords', which is not an ordinary file" in hostile.run("evaluate").stderr


def test_scores_are_in_the_order_of_the_rows_and_never_see_the_label(
    repository: Path, guardrails: Guardrails, tmp_path: Path
) -> None:
    looks = CONSTANT + "    \n_inner = predict_fn\ndef predict_fn(data, model):\n" + (
        "    assert 'bought' not in data\n    return _inner(data, model)\n")  # fmt: skip
    trained = job(repository, guardrails, tmp_path / "job", {"train.py": WRITES_ALL, "inference.py": looks})
    assert trained.run().returncode == 0
    write_rows(tmp_path / "data", 12)
    where = ["--model", str(trained.model), "--data", str(tmp_path / "data"), "--output", str(tmp_path / "out.parquet")]
    done = trained.run("score", *where, root=trained.model / "code")
    assert done.returncode == 0, done.stderr
    found = pd.read_parquet(tmp_path / "out.parquet")["prediction"].tolist()
    assert found == pytest.approx([0.25] * 4 + [0.35] * 2 + [0.25] * 4 + [0.35] * 2)


def test_missing_serving_functions_get_plain_defaults(repository: Path, guardrails: Guardrails, tmp_path: Path) -> None:
    trained = job(repository, guardrails, tmp_path / "job", {"train.py": WRITES_ALL, "inference.py": CONSTANT})
    assert trained.run().returncode == 0
    (tmp_path / "request").write_text('[{"visits": 9}, {"visits": 0}]')
    given = ["--model", str(trained.model), "--request", str(tmp_path / "request")]
    done = trained.run("answer", *given, root=trained.model / "code")
    assert json.loads(done.stdout)["predictions"] == pytest.approx([0.35, 0.25])


def test_vendored_wheels_are_there_in_training_and_travel_with_the_model(
    repository: Path, guardrails: Guardrails, tmp_path: Path
) -> None:
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("vendored_thing.py", "VALUE = 7\n")
        archive.writestr("vendored_thing-1.0.data/platlib/vendored_more.py", "VALUE = 8\n")
    uses = "import vendored_thing, vendored_more\nprint(vendored_thing.VALUE, vendored_more.VALUE)\n"
    wheels = {"vendored_thing-1.0-py3-none-any.whl": wheel.getvalue()}
    files = {"train.py": uses + WRITES_ALL, "inference.py": uses + CONSTANT}
    trained = job(repository, guardrails, tmp_path / "job", files, wheels)
    done = trained.run()
    assert "7 8" in done.stdout, done.stderr
    (tmp_path / "request").write_text('[{"visits": 9}]')
    given = ["--model", str(trained.model), "--request", str(tmp_path / "request")]
    assert "7 8" in trained.run("answer", *given, root=trained.model / "code").stdout


def test_a_new_model_trains_evaluates_and_answers(repository: Path, guardrails: Guardrails, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    for part, day in (("train", 1), ("input/holdout", 2)):
        (folder / part).mkdir(parents=True)
        write = (
            "from model_code.buy.sample_data import rows_of; import sys, datetime\n"
            f"rows_of({date(2013, 1, day)!r}).to_parquet(sys.argv[1])"
        )
        subprocess.run([sys.executable, "-c", write, str(folder / part / "a.parquet")], check=True, cwd=repository)
    trained = job(repository, guardrails, folder, {})
    assert trained.run("--num_round", "10").returncode == 0
    trained.pack_model("challenger")
    assert trained.run("evaluate").returncode == 0
    assert json.loads((folder / "output" / "evaluation.json").read_text())["challenger"]["auc"] > 0.6
