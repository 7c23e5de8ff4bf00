"""What the XGBoost image's training toolkit (sagemaker-containers 2.8.6) does around a script: script mode.

It unpacks `sagemaker_submit_directory`, describes the job in SM_* variables, and runs the script as a module with
the hyperparameters as sorted arguments. It also installs the unpacked folder with pip, which the rehearsal leaves
out (the image's environment is shared): the module is found in the working directory either way.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

from rehearsal.sagemaker.container import HOST, Container
from rehearsal.service import Unsupported

FRAMEWORK = "sagemaker_xgboost_container.training:main"
_OF_TOOLKIT = (
    "sagemaker_program",
    "sagemaker_submit_directory",
    "sagemaker_enable_cloudwatch_metrics",
    "sagemaker_region",
    "sagemaker_container_log_level",
    "sagemaker_job_name",
    "default_user_module_name",
    "_tuning_objective_metric",
    "sagemaker_s3_output",
)


class ScriptMode:
    """The toolkit's view of one training job, read from the container's configuration files."""

    def __init__(self, container: Container, job_name: str) -> None:
        self._container, self._job = container, job_name
        config = container.ml / "input" / "config"
        self._resources = json.loads((config / "resourceconfig.json").read_text())
        self._channels = json.loads((config / "inputdataconfig.json").read_text())
        given = {k: _parsed(v) for k, v in json.loads((config / "hyperparameters.json").read_text()).items()}
        self._toolkits = {k: v for k, v in given.items() if k in _OF_TOOLKIT or k.startswith("sagemaker_")}
        self.hyperparameters = {k: v for k, v in given.items() if k not in self._toolkits}
        self.program = str(self._toolkits["sagemaker_program"])

    @property
    def code(self) -> Path:
        return self._container.ml / "code"

    @property
    def module(self) -> str:
        return self.program.removesuffix(".py")

    def unpack(self) -> None:
        """Put the submitted source into the code folder, as the toolkit does before it runs it."""
        source = Path(str(self._toolkits.get("sagemaker_submit_directory", self.code)))
        if source.is_dir() and source != self.code:
            shutil.copytree(source, self.code, dirs_exist_ok=True)
        elif source.is_file():
            self.code.mkdir(parents=True, exist_ok=True)
            with tarfile.open(source) as archive:
                archive.extractall(self.code, filter="data")
        if (self.code / "requirements.txt").exists():
            raise Unsupported(
                "requirements.txt at the root of the source: the image would install it from an index; "
                "bring wheels along instead"
            )

    def arguments(self) -> list[str]:
        """The hyperparameters as `--key value`, sorted."""
        pairs = ((_flag(name), _argument(value)) for name, value in sorted(self.hyperparameters.items()))
        return [word for pair in pairs for word in pair]

    def command(self) -> list[str]:
        return [str(self._container.python), "-m", self.module, *self.arguments()]

    def variables(self) -> dict[str, str]:
        """The SM_* environment, and what the toolkit exports beside it."""
        facts = self._facts()
        channels = {f"channel_{name}": path for name, path in facts["channel_input_dirs"].items()}
        named = {f"hp_{name}": value for name, value in self.hyperparameters.items()}
        renamed = {
            "hps": facts["hyperparameters"],
            "framework_params": facts["additional_framework_parameters"],
            "channels": sorted(facts["channel_input_dirs"]),
            "training_env": facts,
            "user_args": self.arguments(),
        }
        apart = (
            "hyperparameters",
            "additional_framework_parameters",
            "channel_input_dirs",
            "is_master",
            "master_hostname",
            "job_name",
        )
        plain = {name: value for name, value in facts.items() if name not in apart}
        described = {f"SM_{k.upper()}": _text(v) for k, v in {**plain, **renamed, **channels, **named}.items()}
        return {
            **described,
            "CURRENT_HOST": HOST,
            "SAGEMAKER_JOB_NAME": str(self._toolkits.get("sagemaker_job_name", "")),
            "SAGEMAKER_REGION": str(self._toolkits.get("sagemaker_region", "")),
        }

    def _facts(self) -> dict[str, Any]:
        ml = self._container.ml
        return {
            "additional_framework_parameters": {k: v for k, v in self._toolkits.items() if k not in _OF_TOOLKIT},
            "channel_input_dirs": {name: str(ml / "input" / "data" / name) for name in self._channels},
            "current_host": HOST,
            "framework_module": FRAMEWORK,
            "hosts": self._resources["hosts"],
            "hyperparameters": self.hyperparameters,
            "input_config_dir": str(ml / "input" / "config"),
            "input_data_config": self._channels,
            "input_dir": str(ml / "input"),
            "is_master": True,
            "job_name": self._job,
            "log_level": self._toolkits.get("sagemaker_container_log_level", 20),
            "master_hostname": HOST,
            "model_dir": str(ml / "model"),
            "module_dir": str(self._toolkits.get("sagemaker_submit_directory", self.code)),
            "module_name": self.module,
            "network_interface_name": self._resources["network_interface_name"],
            "num_cpus": os.cpu_count(),
            "num_gpus": 0,
            "output_data_dir": str(ml / "output" / "data"),
            "output_dir": str(ml / "output"),
            "output_intermediate_dir": str(ml / "output" / "intermediate"),
            "resource_config": self._resources,
            "user_entry_point": self.program,
        }


def failure(code: int, message: str, command: list[str]) -> str:
    """The failure file of a script that failed, as newer toolkits word it (the XGBoost image's names the command
    only): the reader sees the error itself."""
    return f'ExecuteUserScriptError:\nExitCode {code}\nErrorMessage "{message}"\nCommand "{" ".join(command)}"'


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))


def _flag(name: str) -> str:
    return f"--{name}" if len(name) > 1 else f"-{name}"


def _argument(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in sorted(value.items()))
    return "" if value is None else str(value)
