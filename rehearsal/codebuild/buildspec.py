"""The buildspec, read strictly: what the rehearsal does not do is refused by the key's name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

PHASES = ("install", "pre_build", "build", "post_build")
PYTHON = ("3.11", "3.x", "latest")


class BuildspecError(Exception):
    """The buildspec can't be used; says which key and why."""


@dataclass(frozen=True)
class Phase:
    """Commands in order; `last` run whatever became of them."""

    commands: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    continues: bool | None = None
    """on-failure: True CONTINUE, False ABORT, None the phase's own default."""


@dataclass(frozen=True)
class Artifact:
    """What a build leaves: glob patterns below a folder."""

    files: tuple[str, ...]
    base_directory: str = "."
    excluded: tuple[str, ...] = ()
    discard_paths: bool = False


@dataclass(frozen=True)
class Buildspec:
    shell: str = "sh"
    variables: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    exported: tuple[str, ...] = ()
    phases: dict[str, Phase] = field(default_factory=dict)
    artifact: Artifact | None = None
    secondary: dict[str, Artifact] = field(default_factory=dict)


def parse(text: str) -> Buildspec:
    """The buildspec in `text`; BuildspecError naming the first key that is wrong or not rehearsed."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BuildspecError(f"not YAML: {error}") from None
    spec = _mapping(content, "buildspec", {"version", "env", "phases", "artifacts"})
    if str(spec.get("version")) != "0.2":
        raise BuildspecError(f"version: {spec.get('version')} is not rehearsed; use 0.2")
    env = _mapping(spec.get("env"), "env", {"shell", "variables", "parameter-store", "exported-variables"})
    if env.get("shell", "sh") not in ("sh", "bash", "/bin/sh"):
        raise BuildspecError(f"env.shell: {env['shell']} is not rehearsed; there are sh and bash")
    phases = _mapping(spec.get("phases"), "phases", set(PHASES))
    if not phases:
        raise BuildspecError("phases: there must be at least one")
    artifacts = _mapping(spec.get("artifacts"), "artifacts", None)
    secondary = _mapping(artifacts.pop("secondary-artifacts", None), "artifacts.secondary-artifacts", None)
    return Buildspec(
        shell="bash" if env.get("shell") == "bash" else "sh",
        variables={
            k: _text(v, f"env.variables.{k}") for k, v in _mapping(env.get("variables"), "env.variables").items()
        },
        parameters={k: str(v) for k, v in _mapping(env.get("parameter-store"), "env.parameter-store").items()},
        exported=_texts(env.get("exported-variables"), "env.exported-variables"),
        phases={name: _phase(name, value) for name, value in phases.items()},
        artifact=_artifact(artifacts, "artifacts") if artifacts else None,
        secondary={k: _artifact(v, f"artifacts.secondary-artifacts.{k}") for k, v in secondary.items()},
    )


def _phase(name: str, value: Any) -> Phase:
    known = {"commands", "finally", "on-failure"} | ({"runtime-versions"} if name == "install" else set())
    where = f"phases.{name}"
    phase = _mapping(value, where, known)
    for runtime, version in _mapping(phase.get("runtime-versions"), f"{where}.runtime-versions").items():
        if runtime != "python" or str(version) not in PYTHON:
            raise BuildspecError(f"{where}.runtime-versions: {runtime} {version} is not rehearsed; python 3.11 is")
    failure = phase.get("on-failure")
    if failure not in (None, "ABORT", "CONTINUE"):
        raise BuildspecError(f"{where}.on-failure: {failure} is not rehearsed; ABORT and CONTINUE are")
    return Phase(
        _texts(phase.get("commands"), f"{where}.commands"),
        _texts(phase.get("finally"), f"{where}.finally"),
        None if failure is None else failure == "CONTINUE",
    )


def _artifact(value: Any, where: str) -> Artifact:
    known = {"files", "base-directory", "exclude-paths", "discard-paths", "name"}
    artifact = _mapping(value, where, known)
    files = _texts(artifact.get("files"), f"{where}.files")
    if not files:
        raise BuildspecError(f"{where}.files: at least one pattern is needed")
    discard = str(artifact.get("discard-paths", "no")).lower() in ("yes", "true")
    return Artifact(
        files,
        str(artifact.get("base-directory", ".")),
        _texts(artifact.get("exclude-paths"), f"{where}.exclude-paths"),
        discard,
    )


def _mapping(value: Any, where: str, known: set[str] | None = None) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BuildspecError(f"{where}: must be a mapping, not {type(value).__name__}")
    unknown = sorted(str(key) for key in value if known is not None and key not in known)
    if unknown:
        raise BuildspecError(f"{where}: {', '.join(unknown)} is not rehearsed")
    return {str(key): item for key, item in value.items()}


def _texts(value: Any, where: str) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(_text(item, where) for item in items)


def _text(value: Any, where: str) -> str:
    if isinstance(value, dict | list) or value is None:
        raise BuildspecError(f"{where}: expected text, found {value!r}")
    return str(value).lower() if isinstance(value, bool) else str(value)
