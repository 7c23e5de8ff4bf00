"""What a job's container sees: the image's interpreter, and a folder of the job's own in the place of /opt/ml."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rehearsal.child import isolation
from rehearsal.environments import images, interpreter, scrubbed
from rehearsal.service import Caller, Cloud, Permission, Unsupported

SAGEMAKER = "sagemaker.amazonaws.com"
HOST = "algo-1"
_IMAGE = re.compile(
    r"^(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[\w-]+)\.amazonaws\.com(?:\.cn)?/"
    r"sagemaker-(?P<repository>[\w-]+):(?P<tag>[\w.-]+)$"
)
_OPT_ML = re.compile(r"(?:(?<![\w./-])|(?<=file://))/opt/ml(?![\w-])")
_MESSAGE = 1024


def image_name(uri: str) -> str:
    """The environment that stands in for the image at `uri`; Unsupported if none does."""
    found = _IMAGE.match(uri)
    name = f"{found['repository']}-{found['tag']}" if found else ""
    if name not in images() or name.endswith("-server"):
        raise Unsupported(
            f"the image {uri} is not rehearsed; a prebuilt SageMaker image is, such as "
            "<account>.dkr.ecr.<region>.amazonaws.com/sagemaker-xgboost:3.2-0"
        )
    return name


def check_pull(cloud: Cloud, uri: str, role: str, caller: Caller) -> None:
    """ServiceError unless `role` may pull the image from its ECR repository."""
    found = _IMAGE.match(uri)
    assert found, "image_name accepted it"
    repository = f"arn:aws:ecr:{found['region']}:{found['account']}:repository/sagemaker-{found['repository']}"
    for permission in (
        Permission("ecr:GetAuthorizationToken"),
        Permission("ecr:BatchCheckLayerAvailability", repository),
        Permission("ecr:BatchGetImage", repository),
        Permission("ecr:GetDownloadUrlForLayer", repository),
    ):
        cloud.authorize(role, SAGEMAKER, permission, caller)


class Container:
    """A folder that stands for /opt/ml, and the environment its processes run in.

    Only addresses that SageMaker hands over (arguments, hyperparameters, variables) are rewritten to the folder;
    code that writes /opt/ml literally fails here. Where the machine permits, network isolation takes the network
    away (`unshare`); the job then has no credentials either, as in AWS. Elsewhere only the latter holds.
    """

    def __init__(self, folder: Path, image: str) -> None:
        self.ml = _plain(folder / "opt" / "ml")
        self._image = image

    def close(self) -> None:
        """Remove the link that a folder with an awkward name got."""
        if self.ml.is_symlink():
            shutil.rmtree(self.ml.parent)

    @property
    def python(self) -> Path:
        return interpreter(self._image)

    def localize(self, text: str) -> str:
        """`text` with every path that starts with /opt/ml moved to this container's folder."""
        return _OPT_ML.sub(lambda _: str(self.ml), text)

    def beside(self, name: str) -> Path:
        """A file of the job that is not in /opt/ml."""
        return self.ml.resolve().parent / name

    def path(self, path: str) -> Path:
        """The local place of an absolute path in the container; Unsupported outside of /opt/ml."""
        local = Path(self.localize(path)).resolve()
        if not local.is_relative_to(self.ml.resolve()):
            raise Unsupported(f"the path {path} is not under /opt/ml, where the rehearsal keeps a job's files")
        return local

    def write_config(self, folder: str, **documents: Any) -> None:
        target = self.ml / folder
        target.mkdir(parents=True, exist_ok=True)
        for name, document in documents.items():
            (target / f"{name}.json").write_text(json.dumps(document))

    def environment(self, variables: dict[str, str]) -> dict[str, str]:
        """The process environment: the image's programs first on the PATH, nothing of this machine's user."""
        home, temporary = self.beside("home"), self.beside("tmp")
        home.mkdir(exist_ok=True)
        temporary.mkdir(exist_ok=True)
        base = scrubbed(OMP_NUM_THREADS="1", HOME=str(home), TMPDIR=str(temporary))
        base["PATH"] = f"{self.python.parent}:{base['PATH']}"
        return {**base, **{name: self.localize(value) for name, value in variables.items()}}

    def command(self, words: list[str], isolated: bool) -> list[str]:
        return [*(isolation() if isolated else ()), *(self.localize(word) for word in words)]

    def message(self, name: str) -> str:
        """What the container left in /opt/ml/output/<name>, as much of it as SageMaker shows."""
        file = self.ml / "output" / name
        return file.read_text(errors="replace")[:_MESSAGE] if file.is_file() else ""


def resource_config(instance_type: str) -> dict[str, Any]:
    """resourceconfig.json of a job on one instance."""
    group = "homogeneousCluster"
    return {
        "current_host": HOST,
        "current_instance_type": instance_type,
        "current_group_name": group,
        "hosts": [HOST],
        "network_interface_name": "eth0",
        "instance_groups": [{"instance_group_name": group, "instance_type": instance_type, "hosts": [HOST]}],
    }


def _plain(folder: Path) -> Path:
    """`folder`, made; by way of a link where its name has signs that a container's shell script would trip over."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if re.fullmatch(r"[\w/.+@-]+", str(folder)):
        return folder
    link = Path(tempfile.mkdtemp(prefix="pushline-")) / "ml"
    link.symlink_to(folder)
    return link
