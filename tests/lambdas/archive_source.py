"""Sources that are a zip in S3, where no repository is."""

from __future__ import annotations

import io
import zipfile

import pytest

from tests.lambdas.retraining_world import ACCOUNT, Params, World

BUCKET, KEY = "sources", "source.zip"


def from_archives(patch: pytest.MonkeyPatch) -> None:
    """Let the function listen to the archive."""
    patch.setenv("SOURCE_ARN", f"arn:aws:s3:::{BUCKET}/{KEY}")


def archive(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for path, text in files.items():
            made.writestr(path, text)
    return buffer.getvalue()


def put(world: World, version: str, files: dict[str, str]) -> Params:
    world.contents[BUCKET, KEY] = archive(files)
    world.head = version
    return {"version": "0", "id": version, "source": "aws.s3", "detail-type": "Object Created", "account": ACCOUNT,
            "time": "2026-11-23T12:00:00Z",
            "detail": {"bucket": {"name": BUCKET}, "object": {"key": KEY, "version-id": version}}}  # fmt: skip
