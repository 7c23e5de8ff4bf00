"""Sample raw data arrives: a model's own `sample_data.py` writes it, and it is put where real data would land."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlparse

from rehearsal.environments import scrubbed
from rehearsal.landscape import ClientOf, ModelParts


class NoSampleData(Exception):
    """There is nothing to load; the message says what was looked for and what to do."""


def load(client_of: ClientOf, parts: ModelParts, repository: Path, through: str) -> tuple[int, int]:
    """Put the model's raw data of every day up to `through` (YYYY-MM-DD); (objects put, objects already there)."""
    if not parts.raw_data:
        raise NoSampleData(f"{parts.name} has no output RawData: deploy its training stack first")
    if not _is_day(through):
        raise NoSampleData(f"--through: {through!r} is no day; give YYYY-MM-DD")
    with tempfile.TemporaryDirectory(prefix="sample-data-") as folder:
        _write(repository, parts.name, Path(folder), through)
        return put(client_of, Path(folder), ["."], parts.raw_data)


def _is_day(text: str) -> bool:
    try:
        return dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _write(repository: Path, model: str, folder: Path, through: str) -> None:
    repository = repository.resolve()
    script = repository / "model_code" / model / "sample_data.py"
    if not script.is_file():
        raise NoSampleData(f"{script} is missing: a model with sample data has it; real data is put by whoever has it")
    finished = subprocess.run(
        [sys.executable, str(script), "--output", str(folder), "--through", through],
        cwd=repository,
        env=scrubbed(PYTHONPATH=str(repository)),
        capture_output=True,
        text=True,
    )
    if finished.returncode:
        raise NoSampleData(f"{script.name} of {model} failed:\n{finished.stderr.strip()[-2000:]}")


def put(client_of: ClientOf, folder: Path, parts: Iterable[str], address: str) -> tuple[int, int]:
    """Put the files below these parts of a folder that are not there yet; (objects put, objects already there)."""
    place = urlparse(address)
    prefix = place.path.strip("/")
    client = client_of("s3")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=place.netloc, Prefix=f"{prefix}/")
    there = {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", ())}
    found = (path for part in parts for path in sorted((folder / part).rglob("*")) if path.is_file())
    files = {f"{prefix}/{path.relative_to(folder).as_posix()}": path for path in found}
    new = {key: path for key, path in files.items() if there.get(key) != path.stat().st_size}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: client.upload_file(str(item[1]), place.netloc, item[0]), new.items()))
    return len(new), len(files) - len(new)
