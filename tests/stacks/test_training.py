"""One model's pipeline, feature job and registry, as its template states them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from config import load_settings
from contract import Model, deployed, load_models
from stacks.retrain_workflow import IN_A_VPC, SUBSTITUTIONS
from stacks.training_stack import registration
from tests.conftest import ROOT, Assembly
from tests.stacks import policies

TRAINING = "FlightDelay-Training"


@pytest.fixture
def pipeline(assembly: Assembly) -> dict[str, Any]:
    return assembly.one("AWS::CodePipeline::Pipeline", TRAINING)


def action(pipeline: dict[str, Any], stage: str) -> dict[str, Any]:
    (found,) = [found for found in pipeline["Stages"] if found["Name"] == stage]
    (only,) = found["Actions"]
    return only  # type: ignore[no-any-return]


def test_the_pipeline_has_three_stages_and_a_newer_execution_supersedes(pipeline: dict[str, Any]) -> None:
    assert pipeline["Name"] == "pushline-flight-delay"
    assert (pipeline["PipelineType"], pipeline["ExecutionMode"]) == ("V2", "SUPERSEDED")
    assert [stage["Name"] for stage in pipeline["Stages"]] == ["Source", "Verify", "Retrain"]


def test_a_pipeline_variable_is_none_unless_someone_says_why(pipeline: dict[str, Any]) -> None:
    assert {given["Name"]: given["DefaultValue"] for given in pipeline["Variables"]} == {
        "Trigger": "none", "Reason": "none", "AsOf": "none"}  # fmt: skip


def test_a_push_does_not_start_the_pipeline_by_itself(assembly: Assembly, pipeline: dict[str, Any]) -> None:
    configuration = action(pipeline, "Source")["Configuration"]
    assert configuration["PollForSourceChanges"] in (False, "false")
    assert configuration["BranchName"] == "main"
    assert assembly.resources("AWS::Events::Rule", TRAINING) == {}


def test_verify_learns_why_and_from_which_commit(assembly: Assembly, pipeline: dict[str, Any]) -> None:
    listed = json.loads(action(pipeline, "Verify")["Configuration"]["EnvironmentVariables"])
    assert {given["name"]: given["value"] for given in listed} == {
        "COMMIT": "#{Source.CommitId}", "TRIGGER": "#{variables.Trigger}", "REASON": "#{variables.Reason}",
        "AS_OF": "#{variables.AsOf}", "EXECUTION": "#{codepipeline.PipelineExecutionId}"}  # fmt: skip
    project = assembly.one("AWS::CodeBuild::Project", TRAINING)
    names = {given["Name"] for given in project["Environment"]["EnvironmentVariables"]}
    assert names == {"MODEL", "ARTIFACTS", "DATA", "DEPLOYED"}


def test_verify_knows_what_was_deployed(assembly: Assembly) -> None:
    project = assembly.one("AWS::CodeBuild::Project", TRAINING)
    values = {given["Name"]: given["Value"] for given in project["Environment"]["EnvironmentVariables"]}
    (model,) = [found for found in load_models(ROOT, load_settings().guardrails) if found.name == "flight_delay"]
    assert json.loads(values["DEPLOYED"]) == deployed(model)
    assert deployed(model)["monitoring.quality_loss"] == 0.05


def test_verify_runs_unprivileged_what_was_pushed(assembly: Assembly) -> None:
    project = assembly.one("AWS::CodeBuild::Project", TRAINING)
    assert project["Environment"]["PrivilegedMode"] is False
    assert project["Source"] == {"BuildSpec": "buildspec.yml", "Type": "CODEPIPELINE"}


def test_retraining_gets_what_verify_wrote(pipeline: dict[str, Any]) -> None:
    verify, retrain = action(pipeline, "Verify"), action(pipeline, "Retrain")
    assert verify["OutputArtifacts"] == retrain["InputArtifacts"] == [{"Name": "Retraining"}]
    configuration = retrain["Configuration"]
    assert (configuration["InputType"], configuration["Input"]) == ("FilePath", "retraining.json")
    assert configuration["ExecutionNamePrefix"] == "flight-delay"


def test_every_action_has_a_role_of_its_own(pipeline: dict[str, Any]) -> None:
    roles = {json.dumps(action(pipeline, stage)["RoleArn"]) for stage in ("Source", "Verify", "Retrain")}
    assert len(roles | {json.dumps(pipeline["RoleArn"])}) == 4


def test_the_definition_is_completed_by_cloudformation(assembly: Assembly) -> None:
    machine = assembly.one("AWS::StepFunctions::StateMachine", TRAINING)
    assert set(machine["DefinitionSubstitutions"]) == {*SUBSTITUTIONS, *IN_A_VPC}
    assert json.loads(machine["DefinitionString"])["QueryLanguage"] == "JSONata"
    assert machine["LoggingConfiguration"]["Level"] == "ALL"


def test_the_feature_job_states_version_and_size_and_encrypts(assembly: Assembly) -> None:
    job = assembly.one("AWS::Glue::Job", TRAINING)
    assert (job["Name"], job["GlueVersion"], job["WorkerType"], job["NumberOfWorkers"]) == (
        "flight-delay-features", "5.1", "G.1X", 2)  # fmt: skip
    assert job["SecurityConfiguration"]
    security = assembly.one("AWS::Glue::SecurityConfiguration", TRAINING)["EncryptionConfiguration"]
    assert security["CloudWatchEncryption"]["CloudWatchEncryptionMode"] == "SSE-KMS"


def test_the_registry_is_named_after_the_model(assembly: Assembly) -> None:
    assert assembly.one("AWS::SageMaker::ModelPackageGroup", TRAINING)["ModelPackageGroupName"] == "flight-delay"


def parameters(assembly: Assembly) -> dict[str, Any]:
    found = [found["Properties"] for found in assembly.resources("AWS::SSM::Parameter", TRAINING).values()]
    return {parameter["Name"]: parameter for parameter in found}


def test_whoever_delivers_data_is_told_where_it_lands(assembly: Assembly) -> None:
    assert "/raw/flight_delay/" in json.dumps(parameters(assembly)["/pushline/raw-data/flight_delay"]["Value"])
    (told,) = [name for name, found in assembly.resources("AWS::SSM::Parameter", TRAINING).items()
               if found["Properties"]["Name"] == "/pushline/raw-data/flight_delay"]  # fmt: skip
    assert assembly.templates[TRAINING]["Outputs"]["RawData"]["Value"] == {"Fn::GetAtt": [told, "Value"]}


def test_start_retraining_is_told_which_paths_concern_the_model(assembly: Assembly, pipeline: dict[str, Any]) -> None:
    parameter = parameters(assembly)["/pushline/models/flight_delay"]
    value = json.loads(parameter["Value"])
    assert value["pipeline"] == pipeline["Name"]
    assert "model_code/flight_delay" in value["watch"]


def test_what_a_model_registers_fits_into_its_parameter_however_much_it_watches() -> None:
    folder = f"model_code/{'a' * 137}"
    model = Model.model_validate({
        "name": "m" * 26, "framework": {"name": "xgboost", "version": "3.2-0"}, "evaluation": {"metric": "auc"},
        "watch": [f"{folder}{number:02}" for number in range(20)]})  # fmt: skip
    assert len(model.watch[0]) == 150
    assert len(registration(load_settings(), model).encode()) < 4096


def test_outputs_tell_what_to_find(assembly: Assembly) -> None:
    outputs = assembly.templates[TRAINING]["Outputs"]
    assert {"Model", "Pipeline", "ModelPackageGroup", "RawData"} <= set(outputs)
    assert outputs["Model"]["Value"] == "flight_delay"


def test_the_stack_and_its_resources_carry_model_and_environment(assembly: Assembly) -> None:
    manifest = json.loads((assembly.path / "manifest.json").read_text())
    tags = manifest["artifacts"][TRAINING]["properties"]["tags"]
    assert tags == {"pushline:model": "flight_delay", "pushline:environment": "training"}


def test_a_feature_job_lists_its_own_prefixes_and_the_names_of_top_folders_only(assembly: Assembly) -> None:
    listing = [found for found in policies.of(assembly, "JobsFeatures", "FlightDelay-Training")
               if found.actions == ("s3:ListBucket",)]  # fmt: skip
    own = ["raw/flight_delay", "raw/flight_delay/*", "features/flight-delay", "features/flight-delay/*"]
    assert [found.conditions for found in listing] == [
        {"StringLikeIfExists": {"s3:prefix": own}},
        {"StringEquals": {"s3:prefix": ["", "raw/", "features/"], "s3:delimiter": "/"}},
    ]
