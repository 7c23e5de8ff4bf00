"""A registered version goes through staging to production, whatever the kind of endpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from contract.new import write_model
from rehearsal import status
from rehearsal.connection import look
from rehearsal.landscape import NotDeployed
from tests.rehearsal.scientist import Scientist, private_clone, rehearsal
from tests.rehearsal.serving import OF_THE_PLATFORM, packed
from tests.rehearsal.waiting import until

KINDS = {"sometimes": "serverless", "queued": "async", "nightly": "none"}
IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:3.2-0"
SAMPLE, ANSWER = b"1\n2\n", b"[2.0, 4.0]"


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scientist]:
    """One model of each kind, deployed, without a version."""
    clone = private_clone(tmp_path_factory.mktemp("kinds") / "clone")
    for name, kind in KINDS.items():
        write_model(clone, name)
        path = clone / "model_code" / name / "model.yaml"
        path.write_text(re.sub(r"serving: .*", f"serving: {{endpoint: {kind}}}", path.read_text()))
    with rehearsal(clone) as person:
        yield person


def artifacts(person: Scientist) -> str:
    """The name of the bucket that models are registered from."""
    resources = person.at.client("cloudformation").get_paginator("list_stack_resources")
    return next(
        str(found["PhysicalResourceId"])
        for page in resources.paginate(StackName="Pushline-Foundation")
        for found in page["StackResourceSummaries"]
        if found["ResourceType"] == "AWS::S3::Bucket" and found["LogicalResourceId"].startswith("Artifacts")
    )


def register(person: Scientist, model: str, factor: float = 2, answer: bytes = ANSWER) -> None:
    """What the retraining registers: an artifact, a sample request and the answer recorded at evaluation."""
    bucket, s3 = artifacts(person), person.at.client("s3")

    def put(key: str, content: bytes) -> str:
        s3.put_object(Bucket=bucket, Key=key, Body=content)
        return f"s3://{bucket}/{key}"

    facts = {"approval": "automatic", "metric": "auc", "challenger": "0.7", "champion": "none", "commit": "1a2b",
             "lineage": "none", "serving_instance_type": "ml.m6i.large", "serving_minimum_instances": "1",
             "serving_maximum_instances": "1", "sample_request": put(f"bundles/{model}/1/sample_request.csv", SAMPLE),
             "sample_answer": put(f"evaluation/{model}/{factor}/sample_answer.json", answer)}  # fmt: skip
    container = {
        "Image": IMAGE,
        "ModelDataUrl": put(f"training/{model}/{factor}/output/model.tar.gz", packed(factor, name=OF_THE_PLATFORM)),
    }
    person.at.client("sagemaker").create_model_package(
        ModelPackageGroupName=model, ModelApprovalStatus="PendingManualApproval", CustomerMetadataProperties=facts,
        InferenceSpecification={"Containers": [container], "SupportedContentTypes": ["text/csv"],
                                "SupportedResponseMIMETypes": ["application/json"]})  # fmt: skip


def live(person: Scientist) -> dict[str, tuple[str, int | None]]:
    """What production runs: by model, the endpoint's status and the version."""
    client_of, landscape = look(person.at)
    return {
        row["model"]: (row["status"], row["version"])
        for row in status.report(client_of, landscape)["endpoints"]
        if row["environment"] == "production"
    }


def test_a_version_of_each_kind_goes_through_staging_to_production(person: Scientist) -> None:
    for model in KINDS:
        register(person, model)
    released = {"sometimes": ("InService", 1), "queued": ("InService", 1), "nightly": ("NoEndpoint", 1)}
    until(lambda: live(person) == released, "not released")
    for model in ("sometimes", "queued"):
        answer = person.live(model)
        assert (answer["version"], json.loads(answer["prediction"])) == (1, [2.0, 4.0])
    person.verb("invoke", "nightly", code=1)
    with pytest.raises(NotDeployed, match="has no endpoint in production"):
        look(person.at)[1].endpoint("nightly", "production")
    assert json.loads(person.verb("audit", "--denied", "--json")) == []


def test_a_wrong_answer_keeps_a_version_out_and_a_rejection_takes_one_back(person: Scientist) -> None:
    for model in ("queued", "nightly"):
        register(person, model, factor=3)
    # Only where there is an endpoint does the sample request find that the answer is not the recorded one.
    until(lambda: live(person)["nightly"] == ("NoEndpoint", 2), "not released")
    until(lambda: decided(person, "queued", 2) == "Rejected", "not rejected")
    person.verb("reject", "nightly", "2")
    until(lambda: live(person)["nightly"] == ("NoEndpoint", 1), "not taken back")
    assert live(person)["queued"] == ("InService", 1)


def decided(person: Scientist, model: str, version: int) -> str:
    client_of, landscape = look(person.at)
    packages = status.model_packages(client_of, landscape.model(model))
    return str(next(row["approval_status"] for row in packages if row["version"] == version))
