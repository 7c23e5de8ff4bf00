"""A version of a model with `serving.shadow`, from staging through production's shadow to its approval."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from config import load_settings
from contract.bundle import pack
from contract.folder import load_model
from contract.new import write_model
from tests.rehearsal.scientist import Scientist, private_clone, rehearsal
from tests.rehearsal.test_kinds_of_endpoint import IMAGE, artifacts, live
from tests.rehearsal.waiting import until

MODEL, PRODUCTION = "beside", "beside-production"
SERVING = ("serving: {shadow: true, capture_percent: 100, instances: {minimum: 1, maximum: 1}, "
           "rollout: {bake_minutes: 0}, alarms: {p99_latency_ms: 60000}}")  # fmt: skip
INFERENCE = """
import json
from pathlib import Path

def model_fn(model_dir):
    return float((Path(model_dir) / "factor.txt").read_text())

def input_fn(data, content_type):
    return [float(line) for line in (data.decode() if isinstance(data, bytes) else data).split()]

def predict_fn(data, model):
    return [model * value for value in data]

def output_fn(prediction, accept):
    return json.dumps(prediction)
"""
REQUESTS = 20
SHADOW_MINUTES = 5


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scientist]:
    """The model is deployed, without a version; a shadow gets half a minute."""
    clone = private_clone(tmp_path_factory.mktemp("shadow") / "clone")
    folder = write_model(clone, MODEL)
    (folder / "inference.py").write_text(INFERENCE)
    change(folder / "model.yaml", r"serving: .*", SERVING)
    change(clone / "config" / "platform.yaml", r"shadow: {minutes: \d+}", f"shadow: {{minutes: {SHADOW_MINUTES}}}")
    with rehearsal(clone) as person:
        yield person


def change(path: Any, pattern: str, value: str) -> None:
    text, changes = re.subn(pattern, value, path.read_text())
    assert changes == 1
    path.write_text(text)


def archive(person: Scientist, factor: int) -> bytes:
    """What training leaves: the model, and beside it the code that serves it and compares its answers."""
    guardrails = load_settings().guardrails
    code = pack(person.clone, load_model(person.clone, MODEL, guardrails), guardrails).sourcedir
    packed, content = io.BytesIO(), str(factor).encode()
    with tarfile.open(fileobj=packed, mode="w:gz") as target, tarfile.open(fileobj=io.BytesIO(code)) as source:
        member = tarfile.TarInfo("factor.txt")
        member.size = len(content)
        target.addfile(member, io.BytesIO(content))
        for member in source:
            file = source.extractfile(member)
            member.name = f"code/{member.name}"
            target.addfile(member, file)
    return packed.getvalue()


def register(person: Scientist, factor: int) -> str:
    """A version that multiplies by `factor`, as the retraining registers it; its ARN."""
    bucket, s3 = artifacts(person), person.at.client("s3")

    def put(key: str, content: bytes) -> str:
        s3.put_object(Bucket=bucket, Key=key, Body=content)
        return f"s3://{bucket}/{key}"

    answer = json.dumps([factor * 1.0]).encode()
    facts = {"approval": "automatic", "metric": "auc", "challenger": "0.7", "champion": "none", "commit": "1a2b",
             "lineage": "none", "serving_instance_type": "ml.m6i.large", "serving_minimum_instances": "1",
             "serving_maximum_instances": "1", "sample_request": put(f"bundles/{MODEL}/1/sample_request.csv", b"1\n"),
             "sample_answer": put(f"evaluation/{MODEL}/{factor}/sample_answer.json", answer)}  # fmt: skip
    url = put(f"training/{MODEL}/{factor}/output/model.tar.gz", archive(person, factor))
    made = person.at.client("sagemaker").create_model_package(
        ModelPackageGroupName=MODEL, ModelApprovalStatus="PendingManualApproval", CustomerMetadataProperties=facts,
        InferenceSpecification={"Containers": [{"Image": IMAGE, "ModelDataUrl": url}],
                                "SupportedContentTypes": ["text/csv"],
                                "SupportedResponseMIMETypes": ["application/json"]})  # fmt: skip
    return str(made["ModelPackageArn"])


def has_shadow(person: Scientist) -> bool:
    sagemaker = person.at.client("sagemaker")
    endpoint = sagemaker.describe_endpoint(EndpointName=PRODUCTION)
    return endpoint["EndpointStatus"] == "InService" and "ShadowProductionVariants" in endpoint


def test_a_version_stands_beside_production_is_compared_approved_and_rolled_out(person: Scientist) -> None:
    sagemaker, runtime = person.at.client("sagemaker"), person.at.client("sagemaker-runtime")
    register(person, 2)
    until(lambda: live(person)[MODEL] == ("InService", 1), "the first version has nothing to stand beside")
    second = register(person, 3)

    def version() -> dict[str, Any]:
        return dict(sagemaker.describe_model_package(ModelPackageName=second))

    until(lambda: has_shadow(person), "no shadow was put up")
    for value in range(1, REQUESTS + 1):
        answer = runtime.invoke_endpoint(EndpointName=PRODUCTION, ContentType="text/csv", Body=f"{value}\n".encode())
        assert json.loads(answer["Body"].read()) == [2.0 * value], "nobody gets the shadow's answers"
    waiting = version()
    assert (waiting["ModelApprovalStatus"], stage(waiting)) == ("PendingManualApproval", ("Staging", "Accepted"))
    until(lambda: version()["ModelApprovalStatus"] == "Approved", "it was not approved")
    approved = version()
    assert stage(approved) == ("Shadow", "Compared")
    said = approved["ApprovalDescription"]
    assert f"As the shadow of production: Both answered {REQUESTS} of the same requests; 100.0 % of the answers" in said
    check(report(person, said))
    until(lambda: live(person)[MODEL] == ("InService", 2), "it was not rolled out")
    assert not has_shadow(person)
    assert json.loads(person.verb("audit", "--denied", "--json")) == []


def stage(package: dict[str, Any]) -> tuple[str, str]:
    return package["ModelLifeCycle"]["Stage"], package["ModelLifeCycle"]["StageStatus"]


def report(person: Scientist, said: str) -> dict[str, Any]:
    """The report whose address people are told; a plot is beside it."""
    found = re.search(r"Report: s3://([^/]+)/(\S+/)", said)
    assert found, said
    s3 = person.at.client("s3")
    plot = s3.get_object(Bucket=found[1], Key=f"{found[2]}answers.png")["Body"].read()
    assert plot.startswith(b"\x89PNG")
    return dict(json.loads(s3.get_object(Bucket=found[1], Key=f"{found[2]}report.json")["Body"].read()))


def check(report: dict[str, Any]) -> None:
    assert report["requests"] == {"production": REQUESTS, "shadow": REQUESTS, "compared": REQUESTS,
                                  "differing": REQUESTS, "other_shape": 0}  # fmt: skip
    assert report["answers"]["largest_difference"] == REQUESTS, "three times as much instead of twice"
    assert report["answers"]["mean"] == {"production": 21.0, "shadow": 31.5}
    assert report["notes"] == []
    for variant in ("production", "shadow"):
        measured = report["measured"][variant]
        assert (measured["requests"], measured["errors"]) == (REQUESTS, 0)
        assert 0 < measured["p99_ms"] < 60_000
