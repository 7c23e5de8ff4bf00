"""Our script mode against the official training toolkits, on the same configuration files.

sagemaker-containers 2.8.6 is in the XGBoost image and is matched whole. The newer sagemaker-training agrees but for
facts that the older one does not know, which the test names.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rehearsal import environments
from rehearsal.sagemaker.container import Container, resource_config
from rehearsal.sagemaker.toolkit import FRAMEWORK, ScriptMode

HYPERPARAMETERS = {
    "num_round": "200",
    "eta": "0.1",
    "flag": "true",
    "nothing": "null",
    "name": "abc",
    "empty": "",
    "a": "1",
    "list": "[1, 2]",
    "object": '{"b": 1, "a": "x"}',
    "quoted": '"s3://x"',
    "sagemaker_program": "pushline_entry.py",
    "sagemaker_region": "us-east-1",
    "sagemaker_job_name": "job-1",
    "sagemaker_container_log_level": "20",
    "sagemaker_other": "5",
}
CHANNELS = {
    "train": {
        "TrainingInputMode": "File",
        "S3DistributionType": "FullyReplicated",
        "RecordWrapperType": "None",
        "ContentType": "application/x-parquet",
    },
    "code": {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"},
}
CONTAINERS = """
import collections, collections.abc, json
collections.Mapping = collections.abc.Mapping  # the image has an older Python
import sagemaker_containers
env = sagemaker_containers.training_env()
"""
TRAINING = """
import json
from sagemaker_training import environment
env = environment.Environment()
"""
REPORT = "print('ORACLE' + json.dumps([env.to_env_vars(), env.to_cmd_args()]))"
NEWER = {
    "SM_CURRENT_INSTANCE_TYPE",
    "SM_CURRENT_INSTANCE_GROUP",
    "SM_CURRENT_INSTANCE_GROUP_HOSTS",
    "SM_INSTANCE_GROUPS",
    "SM_INSTANCE_GROUPS_DICT",
    "SM_DISTRIBUTION_INSTANCE_GROUPS",
    "SM_IS_HETERO",
    "SM_NUM_NEURONS",
}
NEWER_FACTS = {
    "current_instance_group",
    "current_instance_group_hosts",
    "current_instance_type",
    "distribution_hosts",
    "distribution_instance_groups",
    "instance_groups",
    "instance_groups_dict",
    "is_hetero",
    "is_modelparallel_enabled",
    "is_smddpmprun_installed",
    "is_smddprun_installed",
    "num_neurons",
    "topology",
}


@pytest.fixture
def toolkit(tmp_path: Path) -> ScriptMode:
    container = Container(tmp_path, "xgboost-3.2-0")
    submitted = {"sagemaker_submit_directory": str(container.ml / "input/data/code/sourcedir.tar.gz")}
    container.write_config(
        "input/config",
        hyperparameters={**HYPERPARAMETERS, **submitted},
        inputdataconfig=CHANNELS,
        resourceconfig=resource_config("ml.m6i.large"),
    )
    return ScriptMode(container, "job-1")


def _ask(name: str, program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, str], list[str]]:
    """What the toolkit `name` makes of the files; its environment is locked beside this test."""
    monkeypatch.setattr(environments, "IMAGES", Path(__file__).parent / "toolkits")
    variables = environments.scrubbed(
        SAGEMAKER_BASE_DIR=str(folder / "opt" / "ml"),
        SM_STUDIO_LOCAL_MODE="True",
        AWS_REGION="us-east-1",
        TRAINING_JOB_NAME="job-1",
        SAGEMAKER_TRAINING_MODULE=FRAMEWORK,
    )
    asked = subprocess.run(
        [environments.interpreter(name), "-W", "ignore", "-c", program + REPORT],
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    answer = [line for line in asked.stdout.splitlines() if line.startswith("ORACLE")]
    assert answer, asked.stderr
    described, arguments = json.loads(answer[0].removeprefix("ORACLE"))
    return described, arguments


def _described(toolkit: ScriptMode) -> dict[str, str]:
    return {name: value for name, value in toolkit.variables().items() if name.startswith("SM_")}


def test_the_environment_equals_that_of_the_images_own_toolkit(
    toolkit: ScriptMode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, arguments = _ask("sagemaker-containers-2.8.6", CONTAINERS, tmp_path, monkeypatch)
    assert _described(toolkit) == theirs
    assert toolkit.arguments() == arguments


def test_the_newer_toolkit_differs_only_in_what_the_image_does_not_know(
    toolkit: ScriptMode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, arguments = _ask("sagemaker-training-5.1.4", TRAINING, tmp_path, monkeypatch)
    ours = _described(toolkit)
    assert set(theirs) - set(ours) == NEWER
    whole: dict[str, Any] = json.loads(theirs["SM_TRAINING_ENV"])
    assert {name: whole.pop(name) for name in NEWER_FACTS}
    assert whole == json.loads(ours.pop("SM_TRAINING_ENV"))
    assert ours == {name: theirs[name] for name in ours}
    assert toolkit.arguments() == arguments
