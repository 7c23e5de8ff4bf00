"""Drift as it is deployed: requests unlike training, the scheduled job, its alarm, and a retraining for that reason.

The version is registered and not trained, since a training is proved elsewhere; its code, its baseline and everything
from the endpoint to the pipeline are real.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from config import load_settings
from contract import load_model
from contract.bundle import pack
from contract.new import write_model
from rehearsal import assembly
from rehearsal.codecommit import git_url
from rehearsal.connection import look
from tests.rehearsal.daemon import running
from tests.rehearsal.scientist import Scientist, private_clone, synthesized
from tests.rehearsal.waiting import until

MODEL, RUN = "buyers", "buyers-first-run"
TIME_SCALE = 120.0
"""An hour is half a minute: time enough for the job, and the alarm wants two of its runs."""
DAILY, HOURLY = "every_hours: 24", "every_hours: 1"
ALARM = f"{MODEL}-drift-features"
IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:3.2-0"
INFERENCE = """
from pathlib import Path
import numpy as np
def model_fn(model_dir): return float((Path(model_dir) / "model.txt").read_text())
def predict_fn(rows, model): return 1 / (1 + np.exp(model - 0.5 * rows["visits"].to_numpy(dtype=float)))
"""
SAMPLE, ANSWER = b'[{"day": "2013-02-04", "visits": 6}]', b'{"predictions": [0.5]}'
RANDOM = np.random.default_rng(0)
MONDAY = date(2013, 1, 7)
WEEKS, ROWS, ROWS_A_REQUEST = 4, 280, 70
USUAL, UNUSUAL = 3, 12


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scientist]:
    """A model that is live and watched every hour; its pipeline is made after the push, and so has not run."""
    clone = private_clone(tmp_path_factory.mktemp("drift") / "clone")
    platform = clone / "config" / "platform.yaml"
    assert DAILY in platform.read_text()
    platform.write_text(platform.read_text().replace(DAILY, HOURLY))
    folder = write_model(clone, MODEL)
    (folder / "inference.py").write_text(INFERENCE)
    settings = (folder / "model.yaml").read_text()
    (folder / "model.yaml").write_text(re.sub(r"serving: .*", "serving: {capture_percent: 100}", settings))
    cdk_out = synthesized(clone)
    with running(clone.with_name("state"), time_scale=TIME_SCALE) as at:
        person = Scientist(at, clone)
        assembly.deploy(at, cdk_out, Console(quiet=True),
                        lambda stack: "Model" not in stack.template.get("Outputs", {}))  # fmt: skip
        person.commit("A model")
        person.git("push", "--quiet", git_url(at.state_dir, at.endpoint, "pushline"), "HEAD:refs/heads/main")
        person.verb("deploy", str(cdk_out))
        register(person)
        until(lambda: version(person) == 1, "the version did not go live")
        yield person


def test_requests_unlike_training_raise_the_alarm_that_retrains(person: Scientist) -> None:
    # The release's own sample requests are captured, too, and are nobody's.
    until(lambda: len(reports(person)) > 0, "the schedule started no monitoring")
    assert reports(person)[0]["metrics"] == {}
    assert "no requests were captured" in reports(person)[0]["notes"]
    ask(person, UNUSUAL)
    until(lambda: len(measured(person)) > 0, "no requests were measured")
    report = measured(person)[0]
    assert (report["rows"]["measured"], report["week"]) == (ROWS, "the last 7 days by day")
    assert report["periods"] == WEEKS
    assert min(report["metrics"]["FeatureDrift"], report["metrics"]["PredictionDrift"]) > 1
    until(lambda: alarm(person) == "ALARM", "two of three runs above the bound raised no alarm")
    assert len(measured(person)) >= 2
    until(lambda: drift_runs(person) != [], "the alarm retrained nothing")
    assert drift_runs(person)[-1]["trigger"] == "drift"
    assert {json.loads(run["input"])["started_by"] for run in watched(person)} == {"Schedule"}
    assert json.loads(person.verb("audit", "--denied", "--json")) == []


def bucket(person: Scientist, stack: str, name: str) -> str:
    pages = person.at.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
    resources = [found for page in pages for found in page["StackResourceSummaries"]]
    return next(
        str(found["PhysicalResourceId"])
        for found in resources
        if found["ResourceType"] == "AWS::S3::Bucket" and found["LogicalResourceId"].startswith(name)
    )


def customers(count: int, first: date, visits: int) -> pd.DataFrame:
    """Rows of the week that begins on a day, with about so many visits."""
    days = [(first + timedelta(days=number * 7 // count)).isoformat() for number in range(count)]
    return pd.DataFrame({"day": days, "visits": RANDOM.poisson(visits, count)})


def register(person: Scientist) -> None:
    """What a retraining leaves of a version: its archive, lineage and baseline, and the package to be approved."""
    s3, artifacts = person.at.client("s3"), bucket(person, "Pushline-Foundation", "Artifacts")
    data = bucket(person, "Pushline-Foundation", "Data")

    def put(key: str, content: bytes, into: str = artifacts) -> str:
        s3.put_object(Bucket=into, Key=key, Body=content)
        return f"s3://{into}/{key}"

    for week in range(WEEKS):
        rows = io.BytesIO()
        customers(500, MONDAY + timedelta(weeks=week), USUAL).assign(bought=0).to_parquet(rows)
        put(f"features/{MODEL}/{RUN}/baseline/period=week-{week}/a.parquet", rows.getvalue(), data)
    features = {"script_uri": "s3://none/features.py", "modules_uri": "s3://none/modules.zip", "arguments": {}}
    lineage = {"run": RUN, "as_of": "2013-02-03", "features": features, "metrics": {"challenger": {"auc": 0.7}}}
    facts = {"approval": "automatic", "metric": "auc", "challenger": "0.7", "champion": "none", "commit": "1a2b",
             "lineage": put(f"lineage/{MODEL}/{RUN}/lineage.json", json.dumps(lineage).encode()),
             "serving_instance_type": "ml.m6i.large", "serving_minimum_instances": "1",
             "serving_maximum_instances": "1", "sample_request": put(f"bundles/{MODEL}/1/sample_request.json", SAMPLE),
             "sample_answer": put(f"evaluation/{MODEL}/{RUN}/sample_answer.json", ANSWER)}  # fmt: skip
    container = {"Image": IMAGE, "ModelDataUrl": put(f"training/{MODEL}/{RUN}/output/model.tar.gz", archive(person))}
    person.at.client("sagemaker").create_model_package(
        ModelPackageGroupName=MODEL, ModelApprovalStatus="PendingManualApproval", CustomerMetadataProperties=facts,
        InferenceSpecification={"Containers": [container], "SupportedContentTypes": ["application/json"],
                                "SupportedResponseMIMETypes": ["application/json"]})  # fmt: skip


def archive(person: Scientist) -> bytes:
    """A model.tar.gz as the platform's entry module leaves one: the model, and its bundle as code/."""
    guardrails = load_settings().guardrails
    code = pack(person.clone, load_model(person.clone, MODEL, guardrails), guardrails).sourcedir
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as target, tarfile.open(fileobj=io.BytesIO(code)) as bundle:
        for member in bundle:
            content = bundle.extractfile(member)
            member.name = f"code/{member.name}"
            target.addfile(member, content)
        model = tarfile.TarInfo("model.txt")
        model.size = 1
        target.addfile(model, io.BytesIO(b"3"))
    return made.getvalue()


def version(person: Scientist) -> int | None:
    """What production serves."""
    rows = person.status()["endpoints"]
    return next(row["version"] for row in rows if row["environment"] == "production" and row["model"] == MODEL)


def ask(person: Scientist, visits: int) -> None:
    """A week of customers, asked about within a moment."""
    rows = customers(ROWS, MONDAY + timedelta(weeks=WEEKS), visits).to_dict("records")
    runtime, endpoint = person.at.client("sagemaker-runtime"), look(person.at)[1].model(MODEL).endpoints["production"]
    for begin in range(0, ROWS, ROWS_A_REQUEST):
        body = json.dumps(rows[begin : begin + ROWS_A_REQUEST])
        runtime.invoke_endpoint(EndpointName=endpoint, ContentType="application/json", Body=body)


def watched(person: Scientist) -> list[dict[str, Any]]:
    """The monitoring state machine's executions."""
    client = person.at.client("stepfunctions")
    resources = person.at.client("cloudformation").list_stack_resources(StackName="Buyers-Monitoring")
    (machine,) = [found["PhysicalResourceId"] for found in resources["StackResourceSummaries"]
                  if found["ResourceType"] == "AWS::StepFunctions::StateMachine"]  # fmt: skip
    runs = client.list_executions(stateMachineArn=machine)["executions"]
    return [client.describe_execution(executionArn=run["executionArn"]) for run in runs]


def reports(person: Scientist) -> list[dict[str, Any]]:
    """What the jobs wrote of the requests, oldest first."""
    s3, artifacts = person.at.client("s3"), bucket(person, "Pushline-Foundation", "Artifacts")
    found = s3.list_objects_v2(Bucket=artifacts, Prefix=f"monitoring/{MODEL}/").get("Contents", [])
    keys = [each["Key"] for each in sorted(found, key=lambda each: each["LastModified"])]
    return [json.load(s3.get_object(Bucket=artifacts, Key=key)["Body"]) for key in keys if key.endswith("report.json")]


def measured(person: Scientist) -> list[dict[str, Any]]:
    """The reports whose metrics were published."""
    return [report for report in reports(person) if report["metrics"]]


def alarm(person: Scientist) -> str:
    (found,) = person.at.client("cloudwatch").describe_alarms(AlarmNames=[ALARM])["MetricAlarms"]
    return str(found["StateValue"])


def drift_runs(person: Scientist) -> list[dict[str, Any]]:
    """The pipeline's executions for drift."""
    return [row for row in person.status()["pipelines"] if row["trigger"] == "drift"]
