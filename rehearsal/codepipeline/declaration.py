"""A pipeline's declaration: what is checked before it is accepted, and how its variables are filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rehearsal.service import Params, ServiceError, Unsupported

PROVIDERS = {("Source", "CodeCommit"), ("Build", "CodeBuild"), ("Test", "CodeBuild"), ("Invoke", "StepFunctions")}
CONFIGURATION = {
    "CodeCommit": {"RepositoryName", "BranchName", "PollForSourceChanges", "OutputArtifactFormat"},
    "CodeBuild": {"ProjectName", "PrimarySource", "EnvironmentVariables"},
    "StepFunctions": {"StateMachineArn", "ExecutionNamePrefix", "InputType", "Input"},
}
REQUIRED = {
    "CodeCommit": ("RepositoryName", "BranchName"),
    "CodeBuild": ("ProjectName",),
    "StepFunctions": ("StateMachineArn",),
}
SOURCE_VARIABLES = ("CommitId", "BranchName", "RepositoryName", "AuthorDate", "CommitterDate", "CommitMessage")
_VARIABLE = re.compile(r"#\{([^{}]+)\}")


def check(pipeline: Params) -> None:
    """Refuse a declaration that AWS would refuse, or that holds what the rehearsal does not run."""
    where = f"pipeline {pipeline['name']}"
    if not re.fullmatch(r"[A-Za-z0-9.@\-_]{1,100}", pipeline["name"]):
        raise ServiceError("ValidationException", f"{pipeline['name']} is not a pipeline name")
    if pipeline.get("pipelineType", "V1") != "V2":
        raise Unsupported(f"{where}: pipelineType {pipeline.get('pipelineType', 'V1')} is not rehearsed; use V2")
    if pipeline.get("executionMode", "SUPERSEDED") != "SUPERSEDED":
        raise Unsupported(f"{where}: executionMode {pipeline['executionMode']} is not rehearsed")
    for key in ("triggers", "artifactStores"):
        if pipeline.get(key):
            raise Unsupported(f"{where}: {key} is not rehearsed")
    if "artifactStore" not in pipeline:
        raise ServiceError("InvalidStructureException", f"{where}: artifactStore is missing")
    _check_stages(pipeline)


def _check_stages(pipeline: Params) -> None:
    stages = pipeline["stages"]
    if len(stages) < 2:
        raise ServiceError("InvalidStructureException", "Pipeline has fewer than two stages")
    _unique([stage["name"] for stage in stages], "stage")
    known: set[str] = {"codepipeline", "variables"}
    made: set[str] = set()
    for position, stage in enumerate(stages):
        for key in ("onFailure", "onSuccess", "beforeEntry", "blockers"):
            if stage.get(key):
                raise Unsupported(f"stage {stage['name']}: {key} is not rehearsed")
        _unique([action["name"] for action in stage["actions"]], f"action of stage {stage['name']}")
        for action in in_order(stage):
            _check_action(f"stage {stage['name']}, action {action['name']}", action, position == 0)
            _check_references(f"stage {stage['name']}, action {action['name']}", action, pipeline, known, made)


def _check_action(where: str, action: Params, first: bool) -> None:
    kind = action["actionTypeId"]
    provider = kind["provider"]
    if kind["owner"] != "AWS" or (kind["category"], provider) not in PROVIDERS:
        raise Unsupported(f"{where}: {kind['category']}/{kind['owner']}/{provider} is not rehearsed")
    if (kind["category"] == "Source") != first:
        raise ServiceError(
            "InvalidStructureException", f"{where}: source actions belong into the first stage, and only they"
        )
    configuration = action.get("configuration", {})
    if unknown := sorted(set(configuration) - CONFIGURATION[provider]):
        raise Unsupported(f"{where}: configuration {', '.join(unknown)} is not rehearsed")
    if missing := [key for key in REQUIRED[provider] if not configuration.get(key)]:
        raise ServiceError("InvalidActionDeclarationException", f"{where}: {', '.join(missing)} is missing")
    for key in ("region", "commands", "outputVariables", "environmentVariables"):
        if action.get(key):
            raise Unsupported(f"{where}: {key} is not rehearsed")
    if configuration.get("OutputArtifactFormat", "CODE_ZIP") != "CODE_ZIP":
        raise Unsupported(f"{where}: OutputArtifactFormat {configuration['OutputArtifactFormat']} is not rehearsed")
    if str(configuration.get("PollForSourceChanges", "true")).lower() != "false" and provider == "CodeCommit":
        raise Unsupported(f"{where}: PollForSourceChanges must be false; polling is not rehearsed")
    if provider == "StepFunctions" and action.get("outputArtifacts"):
        raise Unsupported(f"{where}: an output artifact of a state machine is not rehearsed")


def _check_references(where: str, action: Params, pipeline: Params, known: set[str], made: set[str]) -> None:
    for item in action.get("inputArtifacts", []):
        if item["name"] not in made:
            raise ServiceError("InvalidStructureException", f"{where}: no earlier action makes artifact {item['name']}")
    declared = {variable["name"] for variable in pipeline.get("variables", [])}
    for name in (n for value in action.get("configuration", {}).values() for n in _VARIABLE.findall(value)):
        namespace, _, variable = name.partition(".")
        if namespace not in known or (namespace == "variables" and variable not in declared):
            raise ServiceError("InvalidActionDeclarationException", f"{where}: there is no variable #{{{name}}}")
    made |= {item["name"] for item in action.get("outputArtifacts", [])}
    known |= {action["namespace"]} if action.get("namespace") else set()


def in_order(stage: Params) -> list[Params]:
    """The stage's actions by runOrder."""
    return sorted(stage["actions"], key=lambda action: int(action.get("runOrder", 1)))


def variables(pipeline: Params, given: list[dict[str, str]]) -> dict[str, str]:
    """The values an execution starts with; ValidationException for one that is unknown, missing or given twice."""
    declared = {v["name"]: v.get("defaultValue") for v in pipeline.get("variables", [])}
    values = {v["name"]: v["value"] for v in given}
    if len(values) != len(given):
        raise ServiceError("ValidationException", "a variable is given twice")
    for name, value in values.items():
        if name not in declared:
            raise ServiceError("ValidationException", f"the pipeline has no variable {name}")
        if not 1 <= len(value) <= 1000:
            raise ServiceError("ValidationException", f"the value of {name} must have 1 to 1000 characters")
    merged = {name: values.get(name, default) for name, default in declared.items()}
    if missing := [name for name, value in merged.items() if value is None]:
        raise ServiceError("ValidationException", f"variables without a default need a value: {', '.join(missing)}")
    return {name: str(value) for name, value in merged.items()}


def resolve(configuration: Mapping[str, str], known: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The configuration with `#{Namespace.Name}` filled in; KeyError names what has no value."""

    def value(match: re.Match[str]) -> str:
        namespace, _, name = match[1].partition(".")
        if name not in known.get(namespace, {}):
            raise KeyError(match[0])
        return known[namespace][name]

    return {key: _VARIABLE.sub(value, text) for key, text in configuration.items()}


def _unique(names: list[str], what: str) -> None:
    if len(set(names)) != len(names):
        raise ServiceError("InvalidStructureException", f"two of one name: {what} {names}")
