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
    """A deployed model whose model.yaml the pushed commit does not have."""

    model: str


def gone(models: Sequence[Model], changed: Changed, before: Collection[str]) -> frozenset[str]:
    """The deployed models that the pushed commit does not have, given those that it did not have `before`."""
    if changed.everything is not None:
        return frozenset(model.name for model in models if model.name not in changed.everything)
    return frozenset(model.name for model in models if model.declaration not in changed.present
                     and (model.name in before or model.declaration in changed.gone))  # fmt: skip


def concerned(push: Push, models: Sequence[Model], changed: Changed, gone: Collection[str],
              owed: Collection[str] = ()) -> list[Request | Gone]:  # fmt: skip
    """One for each model concerned, in the models' order: whose files changed, and whom an earlier push is `owed` to;
    without an earlier commit to compare with, every model."""
    if changed.everything is not None:
        why = dict.fromkeys((model.name for model in models), ": no earlier commit to compare with")
    else:
        why = dict.fromkeys(owed, ": an earlier one could not be routed")
        why |= {name: _changes(paths) for name, paths in _touched(models, changed.paths).items()}
    return [Gone(model.name) if model.name in gone else _request(push, model, why[model.name])
            for model in models if model.name in why]  # fmt: skip


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
    # With its turn, so that going back to an earlier commit is a new push, however often.
    return Request(model.name, "push", f"push {push.commit[:8]}{why}", push.time, f"{push.commit} {push.turn}",
                   commit=push.commit)  # fmt: skip


def _changes(touched: list[str]) -> str:
    more = f" and {len(touched) - 1} more" if len(touched) > 1 else ""
    return f" changes {touched[0]}{more}"
