"""The platform's entry into a model's code, inside the image: training, evaluation, scoring and serving.

    pushline_entry.py [--hyperparameter value …]                       train (run by the image's script mode)
    pushline_entry.py evaluate                                         challenger against champion
    pushline_entry.py score --model DIR --data DIR --output FILE       predictions for parquet rows
    pushline_entry.py monitor                                          live requests and labels against training
    pushline_entry.py shadow                                           the shadow's answers against production's
    pushline_entry.py answer --model DIR --request FILE                one request, answered as the endpoint would

Imported, it is the inference module: `model_fn`, `input_fn`, `predict_fn` and `output_fn` are the model's own, or a
plain default where its inference.py leaves one out. Only the standard library and the image's packages, Python 3.10+.
"""

from __future__ import annotations

import argparse
import csv
import functools
import importlib
import io
import json
import math
import os
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent
MANIFEST = "pushline.json"
VENDORED = "vendored"


class ContractBroken(SystemExit):
    """The model's code did not do what the contract asks; the message is the job's failure reason."""

    def __init__(self, message: str) -> None:
        super().__init__(f"pushline: {message}")


def main(arguments: list[str]) -> None:
    """Train, unless the first argument names something else."""
    if arguments[:1] == ["evaluate"]:
        evaluate(arguments[1:])
    elif arguments[:1] == ["monitor"]:
        monitor(arguments[1:])
    elif arguments[:1] == ["shadow"]:
        compare_shadow(arguments[1:])
    elif arguments[:1] == ["score"]:
        score(arguments[1:])
    elif arguments[:1] == ["answer"]:
        answer(arguments[1:])
    else:
        train(arguments)


# Training


def train(arguments: list[str]) -> None:
    """Run the model's train.py as the main module, check what it wrote, and put the code beside the model."""
    manifest = _use(ROOT)
    model_dir = Path(os.environ["SM_MODEL_DIR"])
    _run(_module(manifest, "train"), arguments)
    metrics = _metrics(model_dir)
    _require_model(model_dir)
    _copy_code(manifest, model_dir / "code")
    print(f"pushline: trained {manifest['model']}, with the metrics {', '.join(sorted(metrics))}")


def _run(module: str, arguments: list[str]) -> None:
    """Run a module as a program; returns when it ends with exit code 0."""
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code not in (None, 0):
            raise


def _metrics(model_dir: Path) -> dict[str, float]:
    path = model_dir / "metrics.json"
    if not path.is_file():
        raise ContractBroken("train.py wrote no metrics.json into SM_MODEL_DIR")
    return _finite_numbers(_json(path), "metrics.json")


def _require_model(model_dir: Path) -> None:
    if (model_dir / "code").exists():
        raise ContractBroken("train.py wrote SM_MODEL_DIR/code, which is the platform's; write the model elsewhere")
    files = [path for path in model_dir.rglob("*") if path.is_file() and path.name != "metrics.json"]
    if not any(path.stat().st_size for path in files):
        raise ContractBroken("train.py wrote no model into SM_MODEL_DIR")


def _copy_code(manifest: dict[str, Any], code: Path) -> None:
    # By the manifest's list: script mode may have installed the bundle among the image's own packages.
    for name in manifest["files"]:
        if name.startswith("wheels/"):
            continue
        target = code / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    if (ROOT / VENDORED).is_dir():
        shutil.copytree(ROOT / VENDORED, code / VENDORED, ignore=shutil.ignore_patterns("__pycache__"))


# Evaluation


def evaluate(arguments: list[str]) -> None:
    """Compare challenger and champion on the holdout by the model's evaluate.py, or the platform's."""
    options = _evaluate_options(arguments)
    manifest = _use(ROOT)
    given = ["--holdout", str(options.input / "holdout"), "--output", str(options.output)]
    for side in ("challenger", "champion"):
        if directory := _unpacked(options.input / side, options.models / side):
            given += [f"--{side}", str(directory)]
    if "--challenger" not in given:
        raise ContractBroken(f"there is no challenger in {options.input / 'challenger'}")
    options.output.mkdir(parents=True, exist_ok=True)
    _run(_module(manifest, "evaluate") if manifest["scripts"]["evaluate"] else "pushline_evaluate", given)
    _check_evaluation(options.output / "evaluation.json", manifest["metric"], champion="--champion" in given)
    _record_answer(options.models / "challenger", options.input / "sample", options.output / "sample_answer.json")


def _record_answer(model: Path, samples: Path, output: Path) -> None:
    """What the challenger answers to the sample request, by its own code; every release is held against it."""
    for request in sorted(samples.glob("sample_request*")) if samples.is_dir() else []:
        entry = [sys.executable, str(model / "code" / "pushline_entry.py"), "answer", "--model", str(model)]
        kind = "text/csv" if request.suffix == ".csv" else "application/json"
        given = ["--request", str(request), "--content-type", kind, "--output", str(output)]
        if subprocess.run([*entry, *given], check=False).returncode:
            raise ContractBroken("the challenger could not answer its sample request; its error is above")


def _evaluate_options(arguments: list[str]) -> argparse.Namespace:
    # The processing job unpacks the bundle beside its inputs and outputs.
    parser = argparse.ArgumentParser(prog="pushline_entry.py evaluate", allow_abbrev=False)
    parser.add_argument("--input", type=Path, default=ROOT.parent / "input")
    parser.add_argument("--output", type=Path, default=ROOT.parent / "output")
    parser.add_argument("--models", type=Path, default=ROOT.parent / "models")
    return parser.parse_args(arguments)


def _unpacked(source: Path, target: Path) -> Path | None:
    """The model directory in `source`, unpacked; None when there is none."""
    archive = source / "model.tar.gz"
    if not archive.is_file():
        return None
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            _extract(tar, member, target)
    return target


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """Write one file or folder of a model; links, devices and paths that leave the folder are refused."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
        raise ContractBroken(f"the model archive holds {member.name!r}, which is not an ordinary file inside it")
    if member.isdir():
        (target / path).mkdir(parents=True, exist_ok=True)
        return
    (target / path).parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    assert content is not None
    with content, (target / path).open("wb") as file:
        shutil.copyfileobj(content, file)


def _check_evaluation(path: Path, metric: str, *, champion: bool) -> None:
    if not path.is_file():
        raise ContractBroken("evaluate.py wrote no evaluation.json into --output")
    found = _json(path)
    rows = found.get("rows")
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        raise ContractBroken(f"evaluation.json has rows {rows!r}; allowed: the number of rows scored, at least 1")
    for side in ("challenger", "champion") if champion else ("challenger",):
        if metric not in _finite_numbers(found.get(side), f"evaluation.json's {side}"):
            raise ContractBroken(f"evaluation.json's {side} lacks {metric}, the metric of model.yaml")
    if not champion and found.get("champion") is not None:
        raise ContractBroken("evaluation.json has a champion, and there is none; allowed: null")


# Monitoring


def monitor(arguments: list[str]) -> None:
    """Watch the live model: its own evaluation on labels that landed since, then requests and answers."""
    places = _evaluate_options(arguments)
    manifest = _use(ROOT)
    challenger, quality = places.input / "challenger", places.output / "quality"
    if any((places.input / "holdout").rglob("*.parquet")):
        evaluate(["--input", str(places.input), "--output", str(quality), "--models", str(places.models)])
    directory = _unpacked(challenger, places.models / "live")
    if directory is None:
        raise ContractBroken(f"there is no model in {challenger}")
    print(f"pushline: watching {manifest['model']}", flush=True)
    given = {"model": directory, "baseline": places.input / "baseline", "captured": places.input / "captured",
             "quality": quality, "output": places.output, "reference": os.environ.get("REFERENCE", "{}")}  # fmt: skip
    _run("pushline_monitor", [f"--{name}={value}" for name, value in given.items()])


# Shadow


def compare_shadow(arguments: list[str]) -> None:
    """Compare what production and its shadow answered to the same requests."""
    places = _evaluate_options(arguments)
    given = {"production": places.input / "production", "shadow": places.input / "shadow", "output": places.output,
             "measured": os.environ.get("MEASURED", "{}"), "since": os.environ.get("SINCE", "")}  # fmt: skip
    _run("pushline_shadow", [f"--{name}={value}" for name, value in given.items()])


# Scoring


def score(arguments: list[str]) -> None:
    """Write the predictions of a model directory's own code for every row, in the rows' order."""
    parser = argparse.ArgumentParser(prog="pushline_entry.py score", allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True, help="an unpacked model, with its code/")
    parser.add_argument("--data", type=Path, required=True, help="a folder of parquet files")
    parser.add_argument("--output", type=Path, required=True, help="the parquet file to write")
    options = parser.parse_args(arguments)
    rows = read_rows(options.data)
    Live(options.model).frame(rows).to_parquet(options.output, index=False)
    # Arrow's threads may be at work still while the interpreter ends in order, which C++ answers by aborting.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class Live:
    """A model directory's own code and model, in this process."""

    def __init__(self, model: Path) -> None:
        self.manifest = _use(model / "code")
        self._inference = _inference(self.manifest)
        self._model = self._inference.model_fn(str(model))

    def frame(self, rows: Any) -> Any:
        """The predictions for a pandas frame of rows, as a frame in the rows' order."""
        features = rows.drop(columns=[self.manifest["label"]], errors="ignore")
        predict = getattr(self._inference, "predict_fn", _default_predict)
        return _frame(predict(features, self._model), len(rows))

    def predict(self, rows: Any) -> Any:
        """One number per row: the prediction, or its first column."""
        return self.frame(rows).iloc[:, 0].to_numpy(dtype=float)

    def read(self, data: Any, content_type: str) -> Any:
        """A request's rows, by the model's own input_fn."""
        return getattr(self._inference, "input_fn", _default_input)(data, content_type)


def read_rows(folder: Path) -> Any:
    """Every row of the parquet files below `folder`, in the order of the files' names, as a pandas frame."""
    import pandas as pd

    files = sorted(path for path in folder.rglob("*.parquet") if path.is_file())
    if not files:
        raise ContractBroken(f"there are no parquet files in {folder}")
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def _frame(predictions: Any, rows: int) -> Any:
    import pandas as pd

    if not isinstance(predictions, pd.DataFrame):
        predictions = pd.DataFrame(predictions)
        wide = predictions.shape[1] > 1
        predictions.columns = [f"prediction_{n}" if wide else "prediction" for n in range(predictions.shape[1])]
    if len(predictions) != rows:
        raise ContractBroken(f"predict_fn gave {len(predictions)} predictions for {rows} rows")
    return predictions


# Serving


def model_fn(model_dir: str) -> Any:
    """The model, loaded by its own inference.py."""
    return _serving().model_fn(model_dir)


def input_fn(data: Any, content_type: str) -> Any:
    """The request's rows."""
    return getattr(_serving(), "input_fn", _default_input)(data, content_type)


def predict_fn(data: Any, model: Any) -> Any:
    """The predictions, one per row."""
    return getattr(_serving(), "predict_fn", _default_predict)(data, model)


def output_fn(prediction: Any, accept: str) -> Any:
    """The response's body."""
    return getattr(_serving(), "output_fn", _default_output)(prediction, accept)


def answer(arguments: list[str]) -> None:
    """Print or write the answer to one request, through the same four functions as the endpoint."""
    parser = argparse.ArgumentParser(prog="pushline_entry.py answer", allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--request", type=Path, required=True)
    parser.add_argument("--content-type", default="application/json")
    parser.add_argument("--output", type=Path, help="a file for the answer, which a model may print beside")
    options = parser.parse_args(arguments)
    rows = input_fn(options.request.read_text(encoding="utf-8"), options.content_type)
    found = output_fn(predict_fn(rows, model_fn(str(options.model))), "application/json")
    body = found[0] if isinstance(found, tuple) else found
    text = body.decode("utf-8") if isinstance(body, bytes) else str(body)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    else:
        print(text)


@functools.cache
def _serving() -> ModuleType:
    return _inference(_use(ROOT))


def _default_input(data: Any, content_type: str) -> Any:
    """CSV with a header, or a JSON object per row (one, a list, or under `instances`), as a pandas frame."""
    import pandas as pd

    text = data.decode("utf-8") if isinstance(data, bytes | bytearray) else data
    kind = content_type.split(";")[0].strip().lower()
    if kind == "text/csv":
        return pd.read_csv(io.StringIO(text))
    if kind != "application/json":
        raise ValueError(f"found content type {content_type!r}; allowed: text/csv, application/json")
    found = json.loads(text)
    found = found.get("instances", found) if isinstance(found, dict) else found
    return pd.DataFrame(found if isinstance(found, list) else [found])


def _default_predict(data: Any, model: Any) -> Any:
    """The model's own predict; a bare xgboost booster gets its matrix."""
    if type(model).__name__ == "Booster":
        import xgboost

        return model.predict(xgboost.DMatrix(data))
    return model.predict(data)


def _default_output(prediction: Any, accept: str) -> str:
    """One prediction per line as CSV, else `{"predictions": […]}`."""
    values = prediction.tolist() if hasattr(prediction, "tolist") else list(prediction)
    if accept.split(";")[0].strip().lower() != "text/csv":
        return json.dumps({"predictions": values})
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(row if isinstance(row, list) else [row] for row in values)
    return text.getvalue()


# The bundle


def _use(root: Path) -> dict[str, Any]:
    """Make the bundle in `root` importable, with the packages that it brings along; its manifest."""
    manifest: dict[str, Any] = _json(root / MANIFEST)
    _unpack_wheels(root)
    for place in (str(root), str(root / VENDORED)):
        if Path(place).is_dir() and place not in sys.path:
            sys.path.insert(0, place)
    return manifest


def _unpack_wheels(root: Path) -> None:
    """Install the bundle's wheels beside it: no network, no pip, and nothing of the image is touched."""
    target = root / VENDORED
    wheels = sorted((root / "wheels").glob("*.whl"))
    if not wheels or target.exists():
        return
    unfinished = root / f".{VENDORED}-{os.getpid()}"
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unfinished)  # noqa: S202 - zipfile keeps members inside
    for data in unfinished.glob("*.data"):
        for library in (data / "purelib", data / "platlib"):
            if library.is_dir():
                shutil.copytree(library, unfinished, dirs_exist_ok=True)
        shutil.rmtree(data)
    try:
        unfinished.rename(target)
    except OSError:  # another worker of the same server was faster
        shutil.rmtree(unfinished)


def _module(manifest: dict[str, Any], script: str) -> str:
    name = str(manifest["scripts"][script]).removesuffix(".py").replace("/", ".")
    return f"model_code.{manifest['model']}.{name}"


def _inference(manifest: dict[str, Any]) -> ModuleType:
    module = importlib.import_module(_module(manifest, "inference"))
    if not hasattr(module, "model_fn"):
        raise ContractBroken(f"{manifest['scripts']['inference']} has no model_fn(model_dir)")
    return module


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ContractBroken(f"{path.name} can't be read: {error}") from None
    if not isinstance(found, dict):
        raise ContractBroken(f"{path.name} holds {type(found).__name__}; allowed: an object")
    return found


def _finite_numbers(found: Any, name: str) -> dict[str, float]:
    if not isinstance(found, dict) or not found:
        raise ContractBroken(f"{name} holds no metrics; allowed: an object of name and number")
    for metric, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ContractBroken(f"{name} has {metric}={value!r}; allowed: a finite number")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
