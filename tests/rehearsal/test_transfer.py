"""What a job read before is kept, yet S3 is asked for it every time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.transfer import Place, Transfer
from tests.rehearsal.loopback import serve

BUCKET, RAW = "kept-copies", Place("kept-copies", "raw/")
DAY = Place(BUCKET, "raw/dt=2013-01-01/flights.csv")


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[Any]:
    with serve(tmp_path=tmp_path) as cloud:
        client = cloud.client("s3")
        client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key=DAY.key, Body=b"x\n1\n")
        asked: list[tuple[str, int]] = []
        client.meta.events.register(
            "after-call.s3.GetObject", lambda http_response, **_: asked.append(("GetObject", http_response.status_code))
        )
        client.asked = asked
        yield client


def fetch(s3: Any, tmp_path: Path, to: str) -> bytes:
    transfer, target = Transfer(s3), tmp_path / to / "flights.csv"
    tags = transfer.listed(RAW)
    transfer.download_kept([(DAY, tags[DAY.key], target)], tmp_path / "kept")
    return target.read_bytes()


def test_an_object_that_did_not_change_is_asked_for_and_comes_without_its_body(s3: Any, tmp_path: Path) -> None:
    assert [fetch(s3, tmp_path, to) for to in ("first", "second")] == [b"x\n1\n", b"x\n1\n"]
    assert s3.asked == [("GetObject", 200), ("GetObject", 304)]


def test_an_object_that_changed_comes_anew(s3: Any, tmp_path: Path) -> None:
    fetch(s3, tmp_path, "first")
    s3.put_object(Bucket=BUCKET, Key=DAY.key, Body=b"x\n2\n")
    assert fetch(s3, tmp_path, "second") == b"x\n2\n"
    s3.put_object(Bucket=BUCKET, Key=DAY.key, Body=b"x\n1\n")
    assert fetch(s3, tmp_path, "third") == b"x\n1\n"


def test_a_script_that_changes_its_copy_changes_nobody_elses(s3: Any, tmp_path: Path) -> None:
    fetch(s3, tmp_path, "first")
    (tmp_path / "first" / "flights.csv").write_bytes(b"spoilt")
    assert fetch(s3, tmp_path, "second") == b"x\n1\n"


def test_who_may_not_read_an_object_gets_no_kept_copy(s3: Any, tmp_path: Path) -> None:
    fetch(s3, tmp_path, "first")
    deny = ClientError(
        {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}},  # type: ignore[typeddict-item]
        "GetObject",
    )

    def refused(**_: Any) -> None:
        raise deny

    s3.meta.events.register_first("before-call.s3.GetObject", refused)
    with pytest.raises(ClientError, match="AccessDenied"):
        fetch(s3, tmp_path, "second")
    assert not (tmp_path / "second").exists()
