"""Which models a push concerns: a pure function of the changed paths."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from lambdas.start_retraining.events import Push, Request

MODELS = "model_code"


@dataclass(frozen=True)
class Model:
    """A deployed model: its pipeline, the paths whose change retrains it, and what else does."""

    name: str
    pipeline: str
    watch: tuple[str, ...]
    on_new_data: bool = True
    on_drift: bool = True
    cool_down_hours: int = 0

    @property
    def slug(self) -> str:
        return self.name.replace("_", "-")

    @property
    def declaration(self) -> str:
        return f"{MODELS}/{self.name}/model.yaml"


@dataclass(frozen=True)
class Changed:
    """Paths that a push wrote, and paths that it removed; a renamed file is one of each.

    Without an earlier commit to compare with, `everything` lists the folders of models that the commit has instead.
    """

    present: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    everything: frozenset[str] | None = None

    @property
    def paths(self) -> list[str]:
        return sorted(self.present | self.gone)

    @property
    def folders(self) -> frozenset[str]:
        """The names of the folders of models that the push wrote to."""
        if self.everything is not None:
            return self.everything
        parts = (path.split("/") for path in self.present)
        return frozenset(part[1] for part in parts if len(part) > 2 and part[0] == MODELS)


@dataclass(frozen=True)
class Gone:
    """A deployed model whose model.yaml the pushed commit does not have any more."""

    model: str


def concerned(push: Push, models: Sequence[Model], changed: Changed) -> list[Request | Gone]:
    """One request per model concerned, in the models' order; without an earlier commit every model is."""
    if changed.everything is not None:
        why = f"push {push.commit[:8]}: no earlier commit to compare with"
        return [_request(push, model, why) if model.name in changed.everything else Gone(model.name)
                for model in models]  # fmt: skip
    touched = _touched(models, changed.paths)
    return [Gone(model.name) if model.declaration in changed.gone - changed.present
            else _request(push, model, _why(push, touched[model.name]))
            for model in models if model.name in touched]  # fmt: skip


def owed(push: Push, models: Sequence[Model], names: Collection[str],
         concerns: Sequence[Request | Gone]) -> list[Request | Gone]:  # fmt: skip
    """Requests of the models that an earlier push could not be routed to, unless this one concerns them anyway."""
    why = f"push {push.commit[:8]}: an earlier one could not be routed"
    done = {concern.model for concern in concerns}
    return [_request(push, model, why) for model in models if model.name in names and model.name not in done]


def alarmed(alarm: str, models: Sequence[Model]) -> Model | None:
    """The model that the alarm `<slug>-drift-…` is about; the longest slug, since one may begin like another."""
    found = [model for model in models if alarm.startswith(f"{model.slug}-drift-")]
    return max(found, key=lambda model: len(model.slug), default=None)


def _touched(models: Sequence[Model], paths: Sequence[str]) -> dict[str, list[str]]:
    """Model to the changed paths it watches; a path is looked up by its parents, whatever the number of models."""
    watchers: dict[str, list[str]] = {}
    for model in models:
        for root in model.watch:
            watchers.setdefault(root, []).append(model.name)
    touched: dict[str, list[str]] = {}
    for path in paths:
        for name in {name for root in _parents(path) for name in watchers.get(root, ())}:
            touched.setdefault(name, []).append(path)
    return touched


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts) + 1))


def _request(push: Push, model: Model, why: str) -> Request:
    # The old commit is in the id so that going back to an earlier commit is a new push.
    return Request(model.name, "push", why, push.time, f"{push.commit} {push.old_commit}", commit=push.commit)


def _why(push: Push, touched: list[str]) -> str:
    more = f" and {len(touched) - 1} more" if len(touched) > 1 else ""
    return f"push {push.commit[:8]} changes {touched[0]}{more}"
