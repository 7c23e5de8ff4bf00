"""A tiny model in plain Python and what it takes to host it: the tests of hosting share it."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from rehearsal.sagemaker import fleet
from tests.rehearsal.waiting import until

IMAGE = "000000000000.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:3.2-0"
ROLE = "arn:aws:iam::000000000000:role/serving"
BUCKET = "artifacts"
DOUBLES = """
import json, os, time

def model_fn(model_dir):
    return float(open(os.path.join(model_dir, "factor.txt")).read())

def input_fn(body, content_type):
    if content_type == "text/csv":
        return [float(line) for line in body.split()]
    return json.loads(body)

def predict_fn(data, model):
    if data == [13]:
        raise ValueError("thirteen is not a number we like")
    if data == [99]:
        time.sleep(0.5)
    return [model * value for value in data]

def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""
BROKEN = "def model_fn(model_dir):\n    raise RuntimeError('the booster is corrupt')\n"


OF_THE_PLATFORM = "pushline_entry.py"
"""The script that a model's archive has where the platform has trained it."""


def gated(go: Path, script: str = DOUBLES, endpoint: str = "") -> str:
    """The script of a server that comes up once that file is there; with `endpoint` only where it serves that one."""
    waits = f"while {endpoint!r} in os.environ['SM_MODEL_DIR'] and not os.path.exists({str(go)!r}):"
    return f"{script}\n{waits}\n    time.sleep(0.02)\n"


def held(go: Path, script: str = DOUBLES) -> str:
    """The script of a server that answers [99] once that file is there, and makes another, `asked`, beside it when it
    is asked."""
    waits = f"""    if data == [99]:
        open({str(go.with_name("asked"))!r}, "w").close()
        while not os.path.exists({str(go)!r}):
            time.sleep(0.02)
    return [model *"""
    return script.replace("    return [model *", waits)


def packed(factor: float = 2, script: str = DOUBLES, name: str = "inference.py") -> bytes:
    """A model.tar.gz with `factor.txt` and a script that serves it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, content in (("factor.txt", str(factor)), (f"code/{name}", script)):
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return buffer.getvalue()


def same_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve with this interpreter: the image's own environment is heavy and proved elsewhere."""
    monkeypatch.setattr(fleet, "interpreter", lambda image: Path(sys.executable))


def upload(cloud: Any, key: str, content: bytes) -> str:
    s3 = cloud.client("s3")
    if BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key=key, Body=content)
    return f"s3://{BUCKET}/{key}"


def configure(
    cloud: Any,
    name: str,
    content: bytes,
    *,
    instances: int = 1,
    package: str = "",
    capture: dict[str, Any] | None = None,
    serverless: dict[str, int] | None = None,
    **more: Any,
) -> str:
    """A model and an endpoint configuration (`more` are its members), both called `name`."""
    sagemaker = cloud.client("sagemaker")
    url = upload(cloud, f"{name}/model.tar.gz", content)
    environment = {"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code"}
    sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn=ROLE,
        PrimaryContainer={
            "Image": IMAGE,
            "ModelDataUrl": url,
            "Environment": {**environment, "MODEL_PACKAGE_ARN": package},
        },
    )
    on_instances = {"InstanceType": "ml.m5.large", "InitialInstanceCount": instances}
    size: dict[str, Any] = {"ServerlessConfig": serverless} if serverless else on_instances
    sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        **({"DataCaptureConfig": capture} if capture else {}),
        **more,
        ProductionVariants=[{"VariantName": "AllTraffic", "ModelName": name, **size}],
    )
    return name


def shadowed(
    cloud: Any, name: str, content: bytes, shadow: bytes, *, weight: float = 1.0, instances: int = 1, **options: Any
) -> None:
    """As `configure`, with a shadow variant that serves another model."""
    sagemaker = cloud.client("sagemaker")
    for model, packed_model in ((f"{name}-production", content), (f"{name}-shadow", shadow)):
        configure(cloud, model, packed_model, instances=instances, **options)
    config = sagemaker.describe_endpoint_config(EndpointConfigName=f"{name}-production")
    variant = config["ProductionVariants"][0]
    copy = {**variant, "VariantName": "Shadow", "ModelName": f"{name}-shadow", "InitialVariantWeight": weight}
    sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[{**variant, "InitialVariantWeight": 1.0}],
        ShadowProductionVariants=[copy],
        **({"DataCaptureConfig": config["DataCaptureConfig"]} if "DataCaptureConfig" in config else {}),
    )


def settled(cloud: Any, endpoint: str) -> dict[str, Any]:
    """The endpoint once it is neither being created nor updated."""

    def done() -> dict[str, Any] | None:
        described: dict[str, Any] = cloud.client("sagemaker").describe_endpoint(EndpointName=endpoint)
        return described if described["EndpointStatus"] in ("InService", "Failed") else None

    return dict(until(done))
