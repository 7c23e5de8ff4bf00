"""The SageMaker SDK (its resource layer, `sagemaker-core`), told of the rehearsal by environment variables only."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rehearsal import environments
from rehearsal.sagemaker import SageMaker
from rehearsal.sagemaker.runtime import SageMakerRuntime
from tests.rehearsal.loopback import REGION, Loopback, serve
from tests.rehearsal.serving import configure, packed, same_python, settled

SDK = "sagemaker-core-2.27.0"
"""Locked beside the toolkits, in an environment of its own: it brings 300 MB that nothing else needs."""
PROGRAM = """
import json
from sagemaker.core.resources import Endpoint, EndpointConfig, Model, ModelPackageGroup

endpoint = Endpoint.get(endpoint_name="doubles")
answer = endpoint.invoke(body=json.dumps([1, 2]), content_type="application/json")
body = answer.body.read() if hasattr(answer.body, "read") else answer.body
print(json.dumps({
    "endpoints": [found.endpoint_name for found in Endpoint.get_all()],
    "status": endpoint.endpoint_status,
    "variant": endpoint.production_variants[0].variant_name,
    "instances": endpoint.production_variants[0].current_instance_count,
    "config": EndpointConfig.get(endpoint_config_name=endpoint.endpoint_config_name).endpoint_config_name,
    "model": Model.get(model_name="doubles").primary_container.environment["SAGEMAKER_PROGRAM"],
    "groups": [found.model_package_group_name for found in ModelPackageGroup.get_all()],
    "answer": json.loads(body),
}))
"""


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    same_python(monkeypatch)
    with serve(SageMaker, SageMakerRuntime, tmp_path=tmp_path) as running:
        yield running


def asked(cloud: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the program prints in the SDK's own environment."""
    with monkeypatch.context() as patched:
        patched.setattr(environments, "IMAGES", Path(__file__).parent / "toolkits")
        python = environments.interpreter(SDK)
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ENDPOINT_URL": cloud.endpoint}
    variables = environments.scrubbed(HOME=str(tmp_path), AWS_DEFAULT_REGION=REGION, AWS_REGION=REGION, **keys)
    done = subprocess.run([python, "-W", "ignore", "-c", PROGRAM], env=variables, capture_output=True, text=True,
                          check=False, timeout=350)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_sdk_lists_describes_and_invokes(cloud: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sagemaker = cloud.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="doubles")
    configure(cloud, "doubles", packed())
    sagemaker.create_endpoint(EndpointName="doubles", EndpointConfigName="doubles")
    settled(cloud, "doubles")
    assert asked(cloud, tmp_path, monkeypatch) == {
        "endpoints": ["doubles"],
        "status": "InService",
        "variant": "AllTraffic",
        "instances": 1,
        "config": "doubles",
        "model": "inference.py",
        "groups": ["doubles"],
        "answer": [2, 4],
    }
