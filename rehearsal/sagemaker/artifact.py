"""Fetch a model's artefact as SageMaker does: with the model's execution role, into a folder of its own."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.sagemaker.container import SAGEMAKER, check_pull
from rehearsal.service import Caller, Cloud, ServiceError


class ArtifactError(Exception):
    """The artefact or image can't be had; the message is fit for a FailureReason."""


def location(url: str) -> tuple[str, str]:
    """(bucket, key) of an s3:// address."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or not parts.path.strip("/"):
        raise ArtifactError(f"{url!r} is not the address of an object: s3://bucket/key")
    return parts.netloc, parts.path.lstrip("/")


def check_readable(cloud: Cloud, url: str, role: str, caller: Caller) -> None:
    """Raise ArtifactError unless `role` can read the object at `url` (SageMaker asks when a model is created)."""
    bucket, key = location(url)
    try:
        _s3(cloud, role, caller).head_object(Bucket=bucket, Key=key)
    except (ClientError, BotoCoreError, ServiceError) as error:
        raise ArtifactError(
            f'Could not access model data at {url}. Please ensure that the role "{role}" exists and that its trust '
            f'relationship policy allows the action "sts:AssumeRole" for the service principal "{SAGEMAKER}". '
            'Also ensure that the role has "s3:GetObject" permissions and that the object is located in '
            f"{caller.region}. ({error})"
        ) from None


def fetch(cloud: Cloud, url: str, role: str, caller: Caller, folder: Path) -> Path:
    """The folder with the unpacked model; made once, complete or not at all."""
    model = folder / "model"
    if model.is_dir():
        return model
    shutil.rmtree(folder, ignore_errors=True)
    unpacked = folder / "unpacking"
    unpacked.mkdir(parents=True)
    packed = folder / "model.tar.gz"
    bucket, key = location(url)
    try:
        _s3(cloud, role, caller).download_file(bucket, key, str(packed))
        with tarfile.open(packed, "r:gz") as archive:
            archive.extractall(unpacked, filter="data")
    except (ClientError, BotoCoreError, ServiceError) as error:
        raise ArtifactError(f"Failed to download model data from {url}: {error}") from None
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ArtifactError(f"Failed to extract model data archive {url}: {error}") from None
    packed.unlink()
    return unpacked.rename(model)


def pull(cloud: Cloud, image: str, role: str, caller: Caller) -> None:
    """Check that `role` may pull `image` from ECR (no layer is fetched: the image's environment stands in)."""
    try:
        check_pull(cloud, image, role, caller)
    except ServiceError as error:
        raise ArtifactError(f"The role {role} can't pull the image {image}: {error.message}") from None


def _s3(cloud: Cloud, role: str, caller: Caller) -> Any:
    return cloud.client(
        "s3", role=role, by=SAGEMAKER, account=caller.account, region=caller.region, session="SageMaker"
    )
