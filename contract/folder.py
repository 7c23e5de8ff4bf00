"""Model folders: each one's model.yaml against schema, guardrails and the files that it names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from config.document import Document, Invalid, Problem, read, salvaged, shown, validated
from config.settings import Guardrails
from contract.guardrails import Finding, beyond
from contract.model import PLATFORM_METRICS, Model

CONTENT_TYPES = {".json": "application/json", ".csv": "text/csv"}


@dataclass(frozen=True)
class SampleRequest:
    """The smoke test's payload."""

    body: str
    content_type: str

    @property
    def suffix(self) -> str:
        return next(suffix for suffix, content_type in CONTENT_TYPES.items() if content_type == self.content_type)


def load_models(root: Path, guardrails: Guardrails) -> tuple[Model, ...]:
    """Every model below `root/model_code`, by name, or Invalid with the problems of all of them."""
    models: list[Model] = []
    problems: list[Problem] = []
    for file in sorted((root / "model_code").glob("*/model.yaml")):
        try:
            models.append(load_model(root, file.parent.name, guardrails))
        except Invalid as error:
            problems += error.problems
    problems += _collisions(models)
    if problems:
        raise Invalid(problems)
    return tuple(models)


def load_model(root: Path, name: str, guardrails: Guardrails) -> Model:
    """The model in `root/model_code/<name>`, or Invalid with everything that is wrong with it."""
    folder = root / "model_code" / name
    if not folder.is_dir() or folder.is_symlink():
        raise Invalid([Problem(f"model_code/{name}", 0, "", "is not a folder of this repository")])
    if (folder / "model.yaml").is_symlink():
        raise Invalid(_symlinks(root, f"model_code/{name}"))
    document = read(folder / "model.yaml", f"model_code/{name}/model.yaml")
    try:
        model = validated(document, Model)
    except Invalid as error:
        left = salvaged(document, Model)
        more = _problems(root, document, left, name, guardrails) if left else _symlinks(root, f"model_code/{name}")
        raise Invalid([*error.problems, *more]) from None
    if problems := _problems(root, document, model, name, guardrails):
        raise Invalid(problems)
    return model


def _problems(root: Path, document: Document, model: Model, name: str, guardrails: Guardrails) -> list[Problem]:
    findings = [document.problem(at, text) for at, text in _findings(root, model, name, guardrails)]
    return [*findings, *_symlinks(root, *model.paths), *_oversize(root, model, guardrails)]


def sample_request(root: Path, model: Model) -> SampleRequest | None:
    """The model's `tests/sample_request.json`, else `.csv`, if it has one."""
    for suffix, content_type in CONTENT_TYPES.items():
        file = root / model.folder / "tests" / f"sample_request{suffix}"
        if file.is_file() and not file.is_symlink():
            return SampleRequest(file.read_text(encoding="utf-8"), content_type)
    return None


def _findings(root: Path, model: Model, name: str, guardrails: Guardrails) -> Iterator[Finding]:
    if model.name != name:
        yield ("name",), f"found {model.name!r}; allowed: {name!r}, the folder's name"
    yield from beyond(model, guardrails)
    yield from _missing_files(root, model)
    yield from _evaluation(root, model)


def _missing_files(root: Path, model: Model) -> Iterator[Finding]:
    scripts = {"features": model.features.script, "training": model.training.script, "serving": model.serving.script}
    if "script" in model.evaluation.model_fields_set:
        scripts["evaluation"] = model.evaluation.script
    for section, script in scripts.items():
        if not (root / model.folder / script).is_file():
            yield (section, "script"), f"found {script!r}, which is missing; allowed: a file in {model.folder}"
    for index, folder in enumerate(model.watch):
        if not (root / folder).is_dir():
            yield ("watch", index), f"found {folder!r}, which is not a folder; allowed: a folder of the repository"
        elif folder in model.paths[: index + 1]:
            yield ("watch", index), f"found {folder!r} again; allowed: each folder once, the model's own is watched"


def _evaluation(root: Path, model: Model) -> Iterator[Finding]:
    if platform_evaluates(root, model) and model.evaluation.metric not in PLATFORM_METRICS:
        yield (
            ("evaluation", "metric"),
            f"found {shown(model.evaluation.metric)}; allowed without {model.evaluation.script}: "
            f"{', '.join(PLATFORM_METRICS)}",
        )


def platform_evaluates(root: Path, model: Model) -> bool:
    """Whether the model leaves its evaluation to the platform."""
    return not (root / model.folder / model.evaluation.script).is_file()


def _symlinks(root: Path, *folders: str) -> list[Problem]:
    paths = [path for folder in folders for path in ((root / folder), *sorted((root / folder).rglob("*")))]
    return [
        Problem(path.relative_to(root).as_posix(), 0, "", "is a symbolic link; allowed: ordinary files and folders")
        for path in paths
        if path.is_symlink()
    ]


def _oversize(root: Path, model: Model, guardrails: Guardrails) -> list[Problem]:
    limit = guardrails.bundle.maximum_file_mb
    return [
        Problem(path.relative_to(root).as_posix(), 0, "", f"has {size / 1e6:.1f} MB; allowed: at most {limit} MB")
        for folder in model.paths
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and not path.is_symlink() and (size := path.stat().st_size) > limit * 1_000_000
    ]


def _collisions(models: Sequence[Model]) -> list[Problem]:
    first: dict[str, Model] = {}
    problems = []
    for model in models:
        other = first.setdefault(model.name.replace("_", ""), model)
        if other is not model:
            text = f"found {model.name!r}, too close to {other.name!r}; allowed: names that differ without '_'"
            problems.append(Problem(f"{model.folder}/model.yaml", 1, "name", text))
    return problems
