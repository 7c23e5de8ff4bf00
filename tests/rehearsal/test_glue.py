"""Glue job runs: a real Spark on an untouched script, with data that comes and goes through S3."""

from __future__ import annotations

import io
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.glue import KIND, Glue
from tests.rehearsal.loopback import Loopback, serve
from tests.rehearsal.waiting import until

SCRIPT = """
import json, sys
from awsglue.context import GlueContext
from awsglue.job import Job
from awsglue.transforms import *
from awsglue.utils import getResolvedOptions
from pyspark.context import SparkContext
from model_code.flight_delay.naming import COLUMN

args = getResolvedOptions(sys.argv, ["JOB_NAME", "raw", "output", "window_days"])
context = GlueContext(SparkContext())
spark = context.spark_session
job = Job(context)
job.init(args["JOB_NAME"], args)
rows = spark.read.csv(args["raw"], header=True)
with open(f"/proc/{context._jvm.java.lang.ProcessHandle.current().pid()}/maps") as maps:
    print("archive of classes:", "spark-classes.jsa" in maps.read())
print("rows", rows.count(), "window", args["window_days"], "dt" in rows.columns)
rows.withColumnRenamed("x", COLUMN).coalesce(1).write.mode("overwrite").parquet(args["output"] + "train")
spark.createDataFrame([("ok",)], ["q"]).coalesce(1).write.json(args["output"] + "quality")
job.commit()
"""


class Quick(Glue):
    """A minute of a run's timeout is short."""

    minute = 0.05


class Late(Glue):
    """Begins to work on a run when it is let."""

    def __init__(self, cloud: Any) -> None:
        super().__init__(cloud)
        self.let, self.worked = threading.Event(), threading.Event()

    def _work(self, *arguments: Any) -> None:
        assert self.let.wait(60)
        super()._work(*arguments)
        self.worked.set()


def _name(cloud: Loopback) -> str:
    """The embedded AWS keeps its jobs for the whole process: one name a test."""
    return f"features-{cloud.state_dir.name}"


def _put(cloud: Loopback, key: str, body: bytes | str) -> str:
    cloud.client("s3").put_object(Bucket="data", Key=key, Body=body)
    return f"s3://data/{key}"


def _modules(cloud: Loopback) -> str:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("model_code/__init__.py", "")
        archive.writestr("model_code/flight_delay/__init__.py", "")
        archive.writestr("model_code/flight_delay/naming.py", "COLUMN = 'delay'")
    return _put(cloud, "code/modules.zip", held.getvalue())


def _job(cloud: Loopback, script: str, **settings: Any) -> None:
    cloud.client("s3").create_bucket(Bucket="data")
    given = {"GlueVersion": "5.1", "WorkerType": "G.1X", "NumberOfWorkers": 2, **settings}
    cloud.client("glue").create_job(
        Name=_name(cloud),
        Role="arn:aws:iam::000000000000:role/features",
        Command={"Name": "glueetl", "PythonVersion": "3", "ScriptLocation": _put(cloud, "code/features.py", script)},
        **{"DefaultArguments": {"--enable-metrics": "true", "--window_days": "1"}, **given},
    )


def _ended(cloud: Loopback, run: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = cloud.client("glue").get_job_run(JobName=_name(cloud), RunId=run)["JobRun"]
        return None if found["JobRunState"] in ("STARTING", "RUNNING", "STOPPING") else found

    return dict(until(look, f"{run} still runs"))


def _told(cloud: Loopback) -> list[dict[str, Any]]:
    """The events of job runs, once there are any: they are sent after the run has ended."""
    return list(until(lambda: [event for event in cloud.events if event["source"] == "aws.glue"], "nothing was told"))


def test_a_run_reads_and_writes_s3_and_leaves_the_script_untouched(tmp_path: Path) -> None:
    with serve(Glue, tmp_path=tmp_path) as cloud:
        _job(cloud, SCRIPT)
        for day in ("01", "02"):
            _put(cloud, f"raw/flight_delay/dt=2013-01-{day}/flights.csv", "x,y\n1,2\n3,4\n")
        _put(cloud, "features/run-1/train/stale.parquet", b"from an earlier run")
        _put(cloud, "raw/flight_delay_other/x.csv", "not asked for")
        run = cloud.client("glue").start_job_run(
            JobName=_name(cloud),
            Timeout=5,
            Arguments={
                "--raw": "s3://data/raw/flight_delay/",
                "--output": "s3://data/features/run-1/",
                "--window_days": "60",
                "--extra-py-files": _modules(cloud),
            },
        )["JobRunId"]
        found = _ended(cloud, run)
        output = cloud.streams["/aws-glue/jobs/output", run].lines
        assert found["JobRunState"] == "SUCCEEDED", cloud.streams["/aws-glue/jobs/error", run].lines
        assert found["ExecutionTime"] >= 1
        assert found["NumberOfWorkers"] == 2
        assert "rows 4 window 60 True" in output
        assert "archive of classes: True" in output
        listed = cloud.client("s3").list_objects_v2(Bucket="data", Prefix="features/")["Contents"]
        kept = [item["Key"] for item in listed]
        assert any(key.startswith("features/run-1/train/part-") for key in kept)
        assert any(key.startswith("features/run-1/quality/part-") for key in kept)
        assert not [key for key in kept if key.endswith(".crc") or "stale" in key or "_temporary" in key]
        assert [event["detail"]["state"] for event in _told(cloud)] == ["SUCCEEDED"]
        assert not (tmp_path / "glue" / run).exists()


@pytest.mark.parametrize("mode", ["SSE-KMS", "DISABLED"])
def test_an_encrypted_jobs_log_groups_are_named_after_its_security_and_role(tmp_path: Path, mode: str) -> None:
    with serve(Glue, tmp_path=tmp_path) as cloud:
        cloud.client("glue").create_security_configuration(
            Name=f"secure-{mode.lower()}",
            EncryptionConfiguration={"CloudWatchEncryption": {"CloudWatchEncryptionMode": mode}},
        )
        _job(cloud, "raise ValueError('no')", SecurityConfiguration=f"secure-{mode.lower()}")
        run = cloud.client("glue").start_job_run(JobName=_name(cloud))["JobRunId"]
        found = _ended(cloud, run)
        named = "/aws-glue/jobs/secure-sse-kms-role/features" if mode == "SSE-KMS" else "/aws-glue/jobs"
        assert found["LogGroupName"] == named
        assert f"(log: {named}/error, stream {run})" in found["ErrorMessage"]
        assert any("ValueError: no" in line for line in cloud.streams[f"{named}/error", run].lines)


def test_a_failing_script_fails_the_run_with_its_exception(tmp_path: Path) -> None:
    with serve(Glue, tmp_path=tmp_path) as cloud:
        _job(cloud, "raise ValueError('rule dep_time: 12 rows')")
        run = cloud.client("glue").start_job_run(JobName=_name(cloud))["JobRunId"]
        found = _ended(cloud, run)
        assert found["JobRunState"] == "FAILED"
        assert found["ErrorMessage"].startswith("ValueError: rule dep_time: 12 rows")
        assert run in found["ErrorMessage"]
        assert "ValueError: rule dep_time: 12 rows" in cloud.streams["/aws-glue/jobs/error", run].lines
        [event] = _told(cloud)
        assert event["detail-type"] == "Glue Job State Change"
        assert (event["detail"]["state"], event["detail"]["severity"]) == ("FAILED", "ERROR")


def test_who_sees_that_a_run_has_ended_sees_all_of_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(Glue, tmp_path=tmp_path) as cloud:
        _job(cloud, "")
        cloud.client("s3").delete_object(Bucket="data", Key="code/features.py")
        kept, put = list[dict[str, Any]](), cloud.store.put

        def keeping(kind: str, key: str, document: dict[str, Any]) -> None:
            kept.append({**document})
            put(kind, key, document)

        monkeypatch.setattr(cloud.store, "put", keeping)
        cloud.client("glue").start_job_run(JobName=_name(cloud))
        _told(cloud)
        [ended] = [run for run in kept if run["JobRunState"] == "FAILED"]
        assert ended["ErrorMessage"]
        assert ended["ExecutionTime"] >= 1
        assert ended["CompletedOn"] == ended["LastModifiedOn"]


def test_a_run_past_its_timeout_is_ended(tmp_path: Path) -> None:
    with serve(Quick, tmp_path=tmp_path) as cloud:
        _job(cloud, "import time; time.sleep(60)")
        run = cloud.client("glue").start_job_run(JobName=_name(cloud), Timeout=1)["JobRunId"]
        found = _ended(cloud, run)
        assert found["JobRunState"] == "TIMEOUT"
        assert "1 minutes" in found["ErrorMessage"]


def test_a_run_can_be_stopped_and_a_second_one_is_refused_meanwhile(tmp_path: Path) -> None:
    with serve(Glue, tmp_path=tmp_path) as cloud:
        glue = cloud.client("glue")
        _job(cloud, "import time; time.sleep(60)")
        run = glue.start_job_run(JobName=_name(cloud))["JobRunId"]
        with pytest.raises(glue.exceptions.ConcurrentRunsExceededException):
            glue.start_job_run(JobName=_name(cloud))
        answer = glue.batch_stop_job_run(JobName=_name(cloud), JobRunIds=[run, "jr_none"])
        assert [s["JobRunId"] for s in answer["SuccessfulSubmissions"]] == [run]
        assert [e["ErrorDetail"]["ErrorCode"] for e in answer["Errors"]] == ["EntityNotFoundException"]
        assert _ended(cloud, run)["JobRunState"] == "STOPPED"
        assert [r["Id"] for r in glue.get_job_runs(JobName=_name(cloud))["JobRuns"]] == [run]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"--additional-python-modules": "x"}, "--additional-python-modules"),
        ({"--job-bookmark-option": "job-bookmark-enable"}, "job-bookmark-enable"),
    ],
)
def test_arguments_that_a_local_spark_cannot_honour_are_refused(
    tmp_path: Path, arguments: dict[str, str], named: str
) -> None:
    with serve(Glue, tmp_path=tmp_path) as cloud:
        _job(cloud, "")
        with pytest.raises(ClientError, match=named):
            cloud.client("glue").start_job_run(JobName=_name(cloud), Arguments=arguments)


def test_an_unknown_job_and_another_glue_version_are_refused(tmp_path: Path) -> None:
    with serve(Glue, tmp_path=tmp_path) as cloud:
        glue = cloud.client("glue")
        with pytest.raises(glue.exceptions.EntityNotFoundException):
            glue.start_job_run(JobName=_name(cloud))
        _job(cloud, "", GlueVersion="4.0")
        with pytest.raises(ClientError, match=r"GlueVersion 4\.0 is not rehearsed"):
            glue.start_job_run(JobName=_name(cloud))


def test_no_run_reaches_the_embedded_aws() -> None:
    """Its job runs report success unrun: every operation on runs must be ours, the catalog's must not."""
    glue = Glue.__new__(Glue)
    for operation in ("StartJobRun", "GetJobRun", "GetJobRuns", "BatchStopJobRun"):
        assert glue.runs(operation)
        assert operation in Glue.PERMISSIONS
    assert not glue.runs("GetJob")


def test_a_run_that_was_running_when_the_rehearsal_died_is_failed(tmp_path: Path) -> None:
    with serve(Glue, tmp_path=tmp_path) as cloud:
        _job(cloud, "import time; time.sleep(60)")
        run = cloud.client("glue").start_job_run(JobName=_name(cloud))["JobRunId"]
        until(lambda: any(document.get("Process") for _, document in cloud.store.list(KIND)), "it does not run")
        cloud.service("glue").stop()
        Glue(cloud).start()
        found = _ended(cloud, run)
        assert (found["JobRunState"], found["ErrorMessage"]) == ("FAILED", "lost when the rehearsal stopped")


def test_a_run_that_was_given_up_is_not_begun_late(tmp_path: Path) -> None:
    with serve(Late, tmp_path=tmp_path) as cloud:
        _job(cloud, "")
        run = cloud.client("glue").start_job_run(JobName=_name(cloud))["JobRunId"]
        service = cloud.service("glue")
        assert isinstance(service, Late)
        service.stop()
        Glue(cloud).start()
        service.let.set()
        assert service.worked.wait(60)
        assert _ended(cloud, run)["ErrorMessage"] == "lost when the rehearsal stopped"
