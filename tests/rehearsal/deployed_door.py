"""The door to retraining as it is deployed, a clone to push from, and models that are pipelines which only wait."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rehearsal import assembly as cloud_assembly
from rehearsal.codecommit import git_url
from rehearsal.connection import look
from rehearsal.server import Running
from rehearsal.triggers import triggers
from tests.conftest import Assembly
from tests.rehearsal.daemon import make_role, running
from tests.rehearsal.test_codecommit import commit, git
from tests.rehearsal.test_codepipeline import action

STACKS = ("Pushline-Foundation", "Pushline-Repository")
TIME_SCALE = 60.0
"""Data settles within half a minute; the storm must be over well before a quarter."""
Row = dict[str, Any]


@dataclass
class Place:
    """A rehearsal with the door, and a clone to push from."""

    at: Running
    clone: Path

    def model(self, name: str, *, seconds: int = 0, **values: Any) -> str:
        """Deploy a model: its parameter, and a pipeline whose retraining waits."""
        pipeline = f"pushline-{name}"
        declaration = _declaration(pipeline, self.machine(name, seconds=seconds))
        self.at.client("codepipeline").create_pipeline(pipeline=declaration)
        value = {"pipeline": pipeline, "watch": [f"model_code/{name}"], "on_new_data": True, "on_drift": True,
                 "cool_down_hours": 0, **values}  # fmt: skip
        self.at.client("ssm").put_parameter(Name=f"/pushline/models/{name}", Value=json.dumps(value), Type="String")
        return pipeline

    def machine(self, name: str, *, seconds: int) -> str:
        """A state machine that waits; its ARN."""
        states = {"Wait": {"Type": "Wait", "Seconds": seconds, "End": True}}
        made = self.at.client("stepfunctions").create_state_machine(
            name=name,
            roleArn="arn:aws:iam::000000000000:role/retrain",
            definition=json.dumps({"StartAt": "Wait", "States": states}),
        )
        return str(made["stateMachineArn"])

    def push(self, **files: str) -> str:
        commit(self.clone, **files)
        return self.push_head()

    def push_head(self, *options: str) -> str:
        git(self.clone, "push", "-q", *options, "origin", "HEAD:main")
        return git(self.clone, "rev-parse", "HEAD")

    def reason(self, pipeline: str) -> str:
        """Why the newest execution was started."""
        return self.variables(pipeline, self.started(pipeline)[-1])["Reason"]

    def land(self, model: str, *names: str) -> None:
        s3 = self.at.client("s3")
        (bucket,) = [found["Name"] for found in s3.list_buckets()["Buckets"] if "-data" in found["Name"]]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: s3.put_object(Bucket=bucket, Key=f"raw/{model}/{name}", Body=b"x"), names))

    def triggers(self, model: str | None) -> list[Row]:
        client_of, landscape = look(self.at)
        return [row for row in triggers(client_of, landscape.start_retraining_log) if row["model"] == model]

    def starts(self, model: str) -> list[Row]:
        """What the door told of the executions that it started, newest first: an execution can be seen a while earlier,
        before the door has kept which commit it was that it routed, and so what the next push is compared with."""
        return [row for row in self.triggers(model) if row["decision"] == "start"]

    def started(self, pipeline: str) -> list[Row]:
        """The executions that were started with a reason, oldest first."""
        return [row for row in self.executions(pipeline) if row["trigger"]["triggerType"] == "StartPipelineExecution"]

    def executions(self, pipeline: str) -> list[Row]:
        """All of them, oldest first."""
        client = self.at.client("codepipeline")
        found: list[Row] = client.list_pipeline_executions(pipelineName=pipeline)["pipelineExecutionSummaries"]
        return found[::-1]

    def variables(self, pipeline: str, execution: Row) -> dict[str, str]:
        found = self.at.client("codepipeline").get_pipeline_execution(
            pipelineName=pipeline, pipelineExecutionId=execution["pipelineExecutionId"]
        )
        return {item["name"]: item["resolvedValue"] for item in found["pipelineExecution"]["variables"]}


@contextmanager
def door(folder: Path, assembly: Assembly) -> Iterator[Place]:
    """Only the foundation's and the repository's stacks, deployed into a rehearsal of their own."""
    with running(folder / "state", time_scale=TIME_SCALE) as at:
        cloud_assembly.deploy(at, only(assembly.path, folder / "cdk.out", STACKS), Console(quiet=True))
        make_role(at, "retrain", "states.amazonaws.com")
        make_role(at, "pipeline", "codepipeline.amazonaws.com", {"Action": "*", "Resource": "*"})
        at.client("s3").create_bucket(Bucket="store")
        clone = folder / "clone"
        clone.mkdir()
        git(clone, "init", "-q", "-b", "main")
        git(clone, "remote", "add", "origin", git_url(at.state_dir, at.endpoint, "pushline"))
        yield Place(at, clone)


def head(execution: Row) -> str:
    """The commit that it took; empty before it took one."""
    return next((str(revision["revisionId"]) for revision in execution.get("sourceRevisions", ())), "")


def only(source: Path, target: Path, stacks: Collection[str]) -> Path:
    """The assembly with no other stacks."""
    shutil.copytree(source, target)
    manifest = json.loads((target / "manifest.json").read_text())
    kept = {name: found for name, found in manifest["artifacts"].items()
            if name.removesuffix(".assets") in stacks or found["type"] == "cdk:tree"}  # fmt: skip
    (target / "manifest.json").write_text(json.dumps({**manifest, "artifacts": kept}))
    return target


def _declaration(name: str, machine: str) -> Row:
    source = {"RepositoryName": "pushline", "BranchName": "main", "PollForSourceChanges": "false"}
    retrain = {"StateMachineArn": machine, "InputType": "Literal", "Input": "{}"}
    return {
        "name": name,
        "roleArn": "arn:aws:iam::000000000000:role/pipeline",
        "pipelineType": "V2",
        "executionMode": "SUPERSEDED",
        "artifactStore": {"type": "S3", "location": "store"},
        "variables": [{"name": name, "defaultValue": "none"} for name in ("Trigger", "Reason", "AsOf")],
        "stages": [
            {"name": "Source",
             "actions": [action("Source", "Source", "CodeCommit", source, outputArtifacts=[{"name": "Source"}])]},
            {"name": "Retrain", "actions": [action("Retrain", "Invoke", "StepFunctions", retrain)]},
        ],
    }  # fmt: skip
