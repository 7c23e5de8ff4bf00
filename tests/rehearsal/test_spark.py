"""Where Java can't make its archive of Spark's classes, jobs run without; that they use it, `test_glue.py` shows."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from rehearsal import spark


def test_without_an_archive_jobs_start_as_they_always_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    image = tmp_path / "image"
    (image / "bin").mkdir(parents=True)
    (image / "lib" / "python3.11").mkdir(parents=True)
    real = spark.interpreter(spark.IMAGE)
    (image / "bin" / "python").symlink_to(real)
    (image / "lib" / "python3.11" / "site-packages").symlink_to(
        next((real.parent.parent / "lib").glob("python*/site-packages"))
    )
    monkeypatch.setattr(spark, "interpreter", lambda _: image / "bin" / "python")
    monkeypatch.setattr(spark, "_JAVA_OPTIONS", ("-XX:+NoSuchOption",))
    with caplog.at_level(logging.WARNING, "rehearsal"):
        given = spark.variables(tmp_path / "run", {"spark.master": "local[1]"})
        spark.variables(tmp_path / "again", {})
    assert len(caplog.records) == 1, "it is not tried for every job"
    assert "jobs start without an archive of Spark's classes" in caplog.text
    written = (tmp_path / "run" / "conf" / "spark.properties").read_text()
    assert "spark.master local[1]\n" in written
    assert "SharedArchiveFile" not in written
    assert str(tmp_path / "run" / "conf" / "spark.properties") in given["PYSPARK_SUBMIT_ARGS"]
    assert not list(image.glob("*.unfinished"))
