"""Verify on a whole repository: what passes is packed, and all that is wrong is said at once with exit code 1."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import contract
from config import Guardrails
from contract import deployed, load_model
from contract.cli import main
from contract.new import Refused, write_model
from contract.requirements import requirements_problems
from contract.source import source_problems

TRIGGER = {
    "ARTIFACTS": "artifacts-bucket",
    "COMMIT": "c" * 40,
    "TRIGGER": "push",
    "REASON": 'push of "a" to main\n; $(boom)',
    "AS_OF": "2013-03-01",
    "EXECUTION": "1234",
}
Change = Callable[..., None]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TRIGGER.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DEPLOYED", raising=False)


def verified(repository: Path, *options: str) -> int:
    return main(["verify", str(repository / "model_code" / "buy"), *options])


def test_a_new_model_passes_and_its_bundle_and_input_are_written(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--bundles", str(tmp_path / "bundles"), "--retraining-input", str(tmp_path / "retraining.json")]
    assert verified(repository, *where) == 0
    assert "4 passed" in capsys.readouterr().out
    found = json.loads((tmp_path / "retraining.json").read_text())
    sha256 = found["bundle"]["sha256"]
    assert (tmp_path / "bundles" / "buy" / sha256 / "sourcedir.tar.gz").is_file()
    assert found["bundle"]["uri"] == f"s3://artifacts-bucket/bundles/buy/{sha256}/sourcedir.tar.gz"
    assert found["features"]["arguments"] == {"--window_days": "60", "--holdout_days": "7"}
    assert found["training"]["hyperparameters"] == {"num_round": "50", "max_depth": "3", "eta": "0.2"}
    assert found["evaluation"]["guards"] == [{"metric": "log_loss", "at_most": 0.69}]
    sample = tmp_path / found["sample_request"].replace("s3://artifacts-bucket/", "")
    assert json.loads(sample.read_text())[0]["visits"] == 5
    assert found["reason"] == TRIGGER["REASON"]
    assert (found["trigger"], found["as_of"], found["approval"]) == ("push", "2013-03-01", "automatic")


def test_everything_wrong_comes_at_once(
    repository: Path, change: Change, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    change(training__instance_type="ml.p5.48xlarge", retrainin={})
    folder = repository / "model_code" / "buy"
    (folder / "train.py").write_text("def main(:\n    pass\n")
    (folder / "inference.py").write_text("import boto3\n\nprint(undefined)\n")
    assert verified(repository, "--bundles", str(tmp_path / "bundles")) == 1
    said = capsys.readouterr().err
    assert "model_code/buy/model.yaml:" in said
    assert "retrainin: found an unknown key" in said
    assert "model_code/buy/train.py:1: is not valid Python: " in said
    assert "model_code/buy/inference.py:1: imports boto3, which models never do" in said
    assert "model_code/buy/inference.py:3: F821 Undefined name `undefined`" in said
    assert "training.instance_type: found 'ml.p5.48xlarge'" in said
    assert said.splitlines()[-1] == "6 problems"
    assert "Traceback" not in said
    assert not (tmp_path / "bundles").exists()


def test_a_failing_model_test_is_shown_beside_the_other_problems(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository / "model_code" / "buy"
    (folder / "tests" / "test_model.py").write_text("def test_it():\n    assert 1 + 1 == 3\n")
    monkeypatch.setenv("DEPLOYED", json.dumps({"retraining.cool_down_hours": 1}))
    assert verified(repository) == 1
    said = capsys.readouterr().err
    assert "model_code/buy/tests: failed:" in said
    assert "assert (1 + 1) == 3" in said
    assert "found 6, deployed is 1; this change needs a cdk deploy" in said


def test_the_models_tests_see_no_credentials(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    test = "import os\n\n\ndef test_it():\n    assert not [name for name in os.environ if name.startswith('AWS_')]\n"
    (repository / "model_code" / "buy" / "tests" / "test_model.py").write_text(test)
    assert verified(repository) == 0


def test_a_model_without_a_sample_request_is_refused(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(repository / "model_code" / "buy" / "tests")
    assert verified(repository) == 1
    assert "model_code/buy/tests: has no sample_request.json" in capsys.readouterr().err


def test_what_is_deployed_already_needs_nothing(
    repository: Path, guardrails: Guardrails, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "model_code" / "buy" / "tests" / "test_model.py").unlink()
    monkeypatch.setenv("DEPLOYED", json.dumps(deployed(load_model(repository, "buy", guardrails))))
    assert verified(repository) == 0


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AS_OF", "none", "AS_OF: found 'none'; allowed: a date such as 2013-03-01"),
        ("TRIGGER", "whim", "TRIGGER: found 'whim'; allowed: push, schedule, data, drift, manual"),
        ("COMMIT", "", "the environment lacks COMMIT"),
    ],
)
def test_a_wrong_environment_is_named(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    name: str, value: str, said: str,
) -> None:  # fmt: skip
    monkeypatch.setenv(name, value)
    assert verified(repository, "--retraining-input", str(tmp_path / "retraining.json")) == 1
    assert capsys.readouterr().err.strip() == said


def test_a_folder_that_is_no_model_is_refused(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(repository / "config")]) == 1
    assert "is not a model's folder; allowed: model_code/<name>" in capsys.readouterr().err
    assert main(["verify", str(repository / "model_code" / "nothing")]) == 1
    assert "model_code/nothing: is not a folder of this repository" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("from model_code.shared import dates", "neither in model_code/buy nor watched; allowed: with `watch: [model"),
        ("from ..shared.dates import WEEK", "neither in model_code/buy nor watched"),
        ("import model_code.shared.dates", "neither in model_code/buy nor watched"),
        ("from . import nothing_here", None),
        ("from model_code.buy.gone import x", "imports model_code.buy.gone, which is missing"),
        ("import columns", "which is not found where the job runs; allowed: model_code.buy.columns"),
        ("from model_code.buy.tests import test_model", "which stays behind: tests do not travel with the model"),
        ("from contract import load_models", "imports contract, which models never do"),
        ("from model_code.buy import columns", None),
        ("from .columns import FIELDS", None),
        ("import json, numpy.linalg", None),
    ],
)
def test_imports_must_travel_with_the_model(repository: Path, line: str, said: str | None) -> None:
    (repository / "model_code" / "buy" / "extra.py").write_text(f"{line}\n")
    found = [str(problem) for problem in source_problems(repository, ["model_code/buy"])]
    assert len(found) == (said is not None)
    assert all(said is not None and said in problem for problem in found)


@pytest.mark.parametrize(
    ("package", "watched", "said"),
    [
        ("model_code", [], True),
        ("model_code/shared", [], False),
        ("model_code/shared", ["model_code/shared"], False),
        ("model_code/shared", ["model_code/shared/weather"], True),
    ],
)
def test_a_package_above_what_travels_may_hold_no_code(
    repository: Path, package: str, watched: list[str], said: bool
) -> None:
    (repository / package / "__init__.py").write_text('"""Shared."""\n\n# Not code.\nSEED = 1\n')
    found = [str(problem) for problem in source_problems(repository, ["model_code/buy", *watched])]
    text = f"{package}/__init__.py:4: holds code, which stays behind; allowed: a docstring, and the code in a folder"
    assert [problem.startswith(text) for problem in found] == [True] * said


def test_watched_code_may_be_imported(repository: Path) -> None:
    (repository / "model_code" / "buy" / "extra.py").write_text("from model_code.shared import dates\n")
    assert source_problems(repository, ["model_code/buy", "model_code/shared"]) == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("# nothing\n\n", []),
        ("six==1.17.0 \\\n    --hash=sha256:" + "a" * 64 + "\n    # via x\n", []),
        ("six==1.17.0 ; python_version < '4' --hash=sha256:" + "a" * 64 + "\n", []),
        ("six==1.17.0\n", [1]),
        ("six\n", [1]),
        ("-i https://example.org/simple\n", [1]),
        ("\nhttps://example.org/six.whl --hash=sha256:" + "a" * 64, [2]),
        ("six @ file:///tmp/six.whl\n-r other.txt\n-e .\n", [1, 2, 3]),
    ],
)
def test_requirements_are_pinned_with_hashes_and_name_no_index(
    repository: Path, guardrails: Guardrails, text: str, lines: list[int]
) -> None:
    (repository / "model_code" / "buy" / "requirements.txt").write_text(text)
    model = load_model(repository, "buy", guardrails)
    assert [problem.line for problem in requirements_problems(repository, model)] == lines


def test_locked_requirements_travel_as_wheels(repository: Path, tmp_path: Path) -> None:
    lock = (Path(contract.__file__).parent / "images" / "xgboost-3.2-0-test.txt").read_text()
    pinned = re.search(r"^iniconfig==.*?(?=^    #)", lock, re.MULTILINE | re.DOTALL)
    assert pinned is not None
    (repository / "model_code" / "buy" / "requirements.txt").write_text(pinned[0])
    (repository / "model_code" / "buy" / "tests" / "test_model.py").unlink()
    assert verified(repository, "--bundles", str(tmp_path / "bundles")) == 0
    (archive,) = tmp_path.glob("bundles/buy/*/sourcedir.tar.gz")
    with tarfile.open(archive) as bundle:
        assert [name for name in bundle.getnames() if name.startswith("wheels/iniconfig-")]


def test_a_requirement_that_can_not_be_had_is_named(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "model_code" / "buy" / "requirements.txt").write_text("iniconfig==2.0.0 --hash=sha256:" + "0" * 64)
    assert verified(repository) == 1
    said = capsys.readouterr().err
    assert "model_code/buy: the image's environment can't be made: " in said
    assert "iniconfig" in said


def test_new_refuses_to_overwrite_and_to_come_too_close(repository: Path) -> None:
    for name, said in (("buy", "exists"), ("b_uy", "too close"), ("Buy", "allowed"), ("../x", "allowed")):
        with pytest.raises(Refused, match=said):
            write_model(repository, name)


def test_a_new_model_satisfies_the_repositorys_own_linter(repository: Path) -> None:
    shutil.copy(Path(__file__).resolve().parents[2] / "pyproject.toml", repository)
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--no-cache", "model_code"]
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_inner_loop_runs_every_step_without_the_cloud(repository: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    stand_in = root / "rehearsal" / "awsglue_standin"
    shutil.copytree(stand_in, repository / "rehearsal" / "awsglue_standin")
    shutil.copytree(root / "contract", repository / "contract", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "contract", "run", "buy", "--sample"]
    variables = {**os.environ, "PUSHLINE_CACHE": str(root / ".cache")}  # what images hold is not made once more
    done = subprocess.run(command, cwd=repository, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "auc 0." in done.stdout
    assert '{"predictions": [' in done.stdout
    again = subprocess.run([*command, "--step", "serve"], cwd=repository, env=variables, capture_output=True, text=True,
                           timeout=60)  # fmt: skip
    assert '{"predictions": [' in again.stdout


def test_a_step_without_the_one_before_it_says_which_to_run(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("contract.cli.ROOT", repository)
    assert main(["run", "buy", "--step", "train"]) == 1
    assert "run the step features first" in capsys.readouterr().err
