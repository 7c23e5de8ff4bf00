"""Copies between S3 and a job's folder, through the S3 API with the job's role, several objects at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from boto3.s3.transfer import TransferConfig

WORKERS = 8
_WHOLE = TransferConfig(use_threads=False)


class Place(NamedTuple):
    """An object or a prefix of a bucket."""

    bucket: str
    key: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def child(self, name: str) -> Place:
        return Place(self.bucket, f"{self.key.rstrip('/')}/{name}".lstrip("/"))


def place(uri: str) -> Place:
    """The place that `uri` (s3://bucket/key) names; ValueError if it is no such address."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme not in ("s3", "s3a", "s3n") or not bucket:
        raise ValueError(f"{uri!r} is no S3 address; write s3://bucket/key")
    return Place(bucket, key)


class Transfer:
    """Copies with one S3 client, thus under one role."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3

    def keys(self, prefix: Place) -> list[str]:
        """Every key that starts with the prefix, without the empty "folders" that consoles make."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=prefix.bucket, Prefix=prefix.key)
        return [item["Key"] for page in pages for item in page.get("Contents", []) if not item["Key"].endswith("/")]

    def download(self, copies: Iterable[tuple[Place, Path]]) -> None:
        _each(self._fetch, copies)

    def upload(self, copies: Iterable[tuple[Path, Place]], kms_key: str | None = None) -> None:
        extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}

        def send(source: Path, target: Place) -> None:
            self._s3.upload_file(str(source), target.bucket, target.key, ExtraArgs=extra, Config=_WHOLE)

        _each(send, copies)

    def delete(self, places: Iterable[Place]) -> None:
        _each(lambda at: self._s3.delete_object(Bucket=at.bucket, Key=at.key), ((at,) for at in places))

    def download_prefix(self, prefix: Place, folder: Path) -> int:
        """All objects under `prefix` into `folder`, laid out as SageMaker does; how many there were."""
        keys = self.keys(prefix)
        self.download((Place(prefix.bucket, key), within(folder, relative(key, prefix.key))) for key in keys)
        return len(keys)

    def upload_folder(self, folder: Path, target: Place, kms_key: str | None = None) -> int:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        self.upload(((path, target.child(path.relative_to(folder).as_posix())) for path in files), kms_key)
        return len(files)

    def _fetch(self, source: Place, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        body = self._s3.get_object(Bucket=source.bucket, Key=source.key)["Body"]
        with target.open("wb") as file:
            for chunk in body.iter_chunks(1 << 20):
                file.write(chunk)


def relative(key: str, prefix: str) -> str:
    """Where `key` lies in the folder of `prefix`: below it, or by its own name where the prefix ends inside a name."""
    rest = key[len(prefix) :]
    return rest.lstrip("/") if prefix.endswith("/") or rest.startswith("/") else key[prefix.rfind("/") + 1 :]


def within(folder: Path, name: str) -> Path:
    """`folder / name`, or ValueError if a key like ../x would leave the folder."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"the key {name!r} would leave its folder")
    return path


def _each(action: Callable[..., object], arguments: Iterable[tuple[Any, ...]]) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        for done in [pool.submit(action, *argument) for argument in arguments]:
            done.result()
