"""Which pipelines an event starts, and why: a pure function."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lambdas.start_retraining.events import Ignored, Manual, Push

NONE = "none"  # a pipeline variable is never empty
_REASON_LIMIT = 200  # a pipeline variable takes 1,000 characters; the registry's metadata 256

_SPLICING = re.compile(r"[^A-Za-z0-9 _.:/=+@()-]")


@dataclass(frozen=True)
class Model:
    """A deployed model: its pipeline and the paths whose change retrains it."""

    name: str
    pipeline: str
    watch: tuple[str, ...]

    def touched_by(self, paths: Iterable[str]) -> list[str]:
        """The changed paths that lie in a watched folder."""
        return [path for path in paths if any(path == root or path.startswith(f"{root}/") for root in self.watch)]


@dataclass(frozen=True)
class Start:
    """One pipeline execution to start; the same `token` never starts a second one."""

    model: str
    pipeline: str
    trigger: str
    reason: str
    as_of: str
    token: str

    @property
    def variables(self) -> list[dict[str, str]]:
        values = {"Trigger": self.trigger, "Reason": self.reason, "AsOf": self.as_of}
        return [{"name": name, "value": value} for name, value in values.items()]


def decide(request: Push | Manual, models: Sequence[Model], paths: Sequence[str] | None) -> list[Start]:
    """The executions to start; `paths` are what a push changed, None when everything is new."""
    if isinstance(request, Manual):
        return [_manual(request, models)]
    starts = [_pushed(request, model, paths) for model in models if paths is None or model.touched_by(paths)]
    if not starts:
        raise Ignored("the push touches no model")
    return starts


def _manual(request: Manual, models: Sequence[Model]) -> Start:
    model = next((model for model in models if model.name == request.model), None)
    if model is None:
        known = ", ".join(sorted(model.name for model in models)) or "none"
        raise Ignored(f"there is no model {request.model!r}; deployed are: {known}")
    token = _token(request.request, model.name)
    return Start(model.name, model.pipeline, "manual", _plain(request.reason), request.as_of or NONE, token)


def _pushed(push: Push, model: Model, paths: Sequence[str] | None) -> Start:
    # The old commit is in the token so that going back to an earlier commit is a new push.
    token = _token(push.commit, push.old_commit, model.name)
    return Start(model.name, model.pipeline, "push", _plain(_why(push, model, paths)), NONE, token)


def _why(push: Push, model: Model, paths: Sequence[str] | None) -> str:
    if paths is None:
        return f"push {push.commit[:8]}: no earlier commit to compare with"
    touched = model.touched_by(paths)
    more = f" and {len(touched) - 1} more" if len(touched) > 1 else ""
    return f"push {push.commit[:8]} changes {touched[0]}{more}"


def _plain(reason: str) -> str:
    """The reason as a pipeline variable: the pipeline splices it into JSON, so a file's name must not be able to."""
    return " ".join(_SPLICING.sub(" ", reason).split())[:_REASON_LIMIT] or NONE


def _token(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
