"""Where model code comes from: every kind has its push told to the one door, and fetched by every model's pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from config import Invalid, load_settings
from config.settings import PLATFORM_FILE
from lambdas.start_retraining.events import Push, Watched, parse
from lambdas.start_retraining.handler import Environment
from tests.conftest import CONNECTION, Assembly, python
from tests.lambdas.retraining_world import ACCOUNT, DATA, NOON
from tests.stacks import policies

REPOSITORY = "Pushline-Repository"
LONGEST = "sixteen-letters-"
CODEPIPELINES_PREFIX = 20
"""CodePipeline keeps artifacts below so many characters of the pipeline's name."""
NAMED = f"""
import app
shipped = app.load_settings()
source = {{"type": "connection", "repository": "acme/models", "connection_arn": "{CONNECTION}"}}
longest = type(shipped).model_validate({{**shipped.model_dump(), "project": "{LONGEST}", "source": source}})
models = app.load_models(app.ROOT, shipped.guardrails)[:1]
app.load_settings, app.load_models = lambda: longest, lambda *_: models
app.main()
"""
Document = dict[str, Any]


def pipelines(assembly: Assembly) -> dict[str, Document]:
    # Stack by stack: the models' stacks have the same logical ids.
    found = [row["Properties"] for name in assembly.templates
             for row in assembly.resources("AWS::CodePipeline::Pipeline", name).values()]  # fmt: skip
    return {str(row["Name"]): row for row in found}


def fetching(pipeline: Document) -> Document:
    (action,) = pipeline["Stages"][0]["Actions"]
    return dict(action)


def environment(assembly: Assembly) -> Document:
    functions = assembly.resources("AWS::Lambda::Function", REPOSITORY).values()
    (variables,) = [row["Properties"]["Environment"]["Variables"] for row in functions]
    return dict(variables)


@pytest.mark.parametrize(("name", "provider"), [("bounded", "S3"), ("connected", "CodeStarSourceConnection")])
def test_every_model_is_fetched_from_the_source_and_nothing_polls(
    otherwise: dict[str, Assembly], name: str, provider: str
) -> None:
    models = {key: row for key, row in pipelines(otherwise[name]).items() if not key.endswith(".push")}
    assert len(models) >= 2
    for row in models.values():
        action = fetching(row)
        assert action["ActionTypeId"]["Provider"] == provider
        assert action["Configuration"].get("PollForSourceChanges", "false") == "false"
        assert action["Configuration"].get("DetectChanges", "false") == "false"
        assert "Triggers" not in row
        assert "CodeCommit" not in json.dumps(row)
    assert not otherwise[name].resources("AWS::CodeCommit::Repository")


def test_a_bundles_version_is_the_commit(otherwise: dict[str, Assembly], assembly: Assembly) -> None:
    for found, variable in ((otherwise["bounded"], "#{Source.VersionId}"), (assembly, "#{Source.CommitId}")):
        for row in pipelines(found).values():
            (verify,) = row["Stages"][1]["Actions"]
            variables = {v["name"]: v["value"] for v in json.loads(verify["Configuration"]["EnvironmentVariables"])}
            assert variables["COMMIT"] == variable


def test_a_new_bundle_is_told_as_a_push(otherwise: dict[str, Assembly]) -> None:
    bundled = otherwise["bounded"]
    pattern = bundled.resources("AWS::Events::Rule", REPOSITORY)["Push7F99B893"]["Properties"]["EventPattern"]
    (key,) = pattern["detail"]["object"]["key"]
    (bucket,) = pattern["detail"]["bucket"]["name"]
    assert environment(bundled)["SOURCE_ARN"]["Fn::Join"][1][-1] == f"/{key}"
    assert "Source" in json.dumps(bucket)
    event = {"source": pattern["source"][0], "detail-type": pattern["detail-type"][0], "account": ACCOUNT,
             "time": "2026-11-23T12:00:00Z",
             "detail": {"bucket": {"name": "sources"}, "object": {"key": key, "version-id": "v1"}}}  # fmt: skip
    watched = Watched(f"arn:aws:s3:::sources/{key}", "main", DATA, ACCOUNT)
    assert parse(event, watched, "r", NOON) == Push("v1", "", NOON, ("sources", key))


def test_a_connections_branch_rings_the_doorbell(otherwise: dict[str, Assembly]) -> None:
    doorbell = pipelines(otherwise["connected"])["pushline.push"]
    (trigger,) = doorbell["Triggers"]
    assert trigger["GitConfiguration"] == {"SourceActionName": "Source",
                                           "Push": [{"Branches": {"Includes": ["main"]}}]}  # fmt: skip
    assert fetching(doorbell)["Configuration"]["FullRepositoryId"] == "acme/models"
    (tell,) = doorbell["Stages"][1]["Actions"]
    assert (tell["ActionTypeId"]["Provider"], tell["Configuration"]["UserParameters"]) == (
        "Lambda", "#{Source.CommitId}")  # fmt: skip
    given = environment(otherwise["connected"])
    assert given["SOURCE_ARN"] == CONNECTION
    assert set(given) == {name.upper() for name in Environment.__dataclass_fields__}


def test_only_the_named_repository_is_used_through_the_connection(otherwise: dict[str, Assembly]) -> None:
    found = policies.statements(otherwise["connected"])
    uses = [statement for statement in found if "codeconnections:UseConnection" in statement.actions]
    assert len(uses) >= 3
    for use in uses:
        assert use.resources == (CONNECTION,)
        assert use.conditions == {"StringEquals": {"codeconnections:FullRepositoryId": "acme/models"}}


def test_the_doorbell_of_the_longest_project_name_reads_and_writes_where_codepipeline_keeps_its_artifacts(
    tmp_path: Path,
) -> None:
    done = python("-c", NAMED, target=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    made, doorbell = Assembly(tmp_path), f"{LONGEST}.push"
    assert doorbell in pipelines(made)
    stored = {(statement.holder[:-8], json.loads(resource)["Fn::Join"][1][-1])
              for statement in policies.statements(made, REPOSITORY) for resource in statement.resources
              if "PipelineStore" in resource and statement.actions[0].startswith("s3:")}  # fmt: skip
    kept = f"/{doorbell[:CODEPIPELINES_PREFIX]}/*"
    assert stored == {("SourceDoorbellRolesSource", kept), ("SourceDoorbellRolesRoute", kept),
                      ("StartRetrainingRole", kept)}  # fmt: skip


def test_a_projects_name_has_at_most_the_length_that_this_file_tries(tmp_path: Path) -> None:
    for name, accepted in ((LONGEST, True), (f"{LONGEST}x", False)):
        file = tmp_path / f"{name}.yaml"
        file.write_text(PLATFORM_FILE.read_text().replace("project: pushline", f"project: {name}"))
        if accepted:
            assert load_settings(file).project == name
            continue
        with pytest.raises(Invalid, match="project"):
            load_settings(file)


def test_what_is_wrong_about_a_source_is_said(tmp_path: Path) -> None:
    file = tmp_path / "platform.yaml"
    shipped = PLATFORM_FILE.read_text()
    file.write_text(shipped.replace("source: {type: codecommit}", "source: {type: connection, repository: models}"))
    with pytest.raises(Invalid) as found:
        load_settings(file)
    assert "connection_arn" in str(found.value)
    assert "repository" in str(found.value)
