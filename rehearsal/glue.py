"""Glue job runs: the job's untouched script on a local Spark, with its data copied through S3 under its role.

Job definitions stay with the embedded AWS. The run's folder holds what the arguments' `s3://` prefixes hold;
Spark sees it under the same addresses, and what the script wrote goes back through the S3 API when it ends.
The run's outcome goes next to the state machine that asked for it, and as an event to the default bus.
"""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from rehearsal.child import Children, end
from rehearsal.glue_run import GlueRun, Outcome, check_arguments
from rehearsal.service import Caller, Params, Permission, Service, ServiceError, Unsupported, arn
from rehearsal.vpc import NoWayIn

KIND = "glue/job-run"
LOG_GROUP = "/aws-glue/jobs"
LOST = "lost when the rehearsal stopped"
_ENDED = {
    "SUCCEEDED": ("INFO", "Job run succeeded"),
    "STOPPED": ("INFO", "Job run stopped"),
    "FAILED": ("ERROR", ""),
    "TIMEOUT": ("WARN", ""),
}
_PRIVATE = ("Role", "Script", "Process", "Caller", "Connections")
Document = dict[str, Any]


def _on_job(operation: str) -> Callable[[Params, Caller], list[Permission]]:
    return lambda params, caller: [Permission(f"glue:{operation}", arn("glue", caller, f"job/{params['JobName']}"))]


class Glue(Service):
    """StartJobRun, GetJobRun, GetJobRuns, BatchStopJobRun; everything else is the embedded AWS's."""

    name = "glue"
    falls_through = True
    PERMISSIONS: ClassVar = {
        operation: _on_job(operation) for operation in ("StartJobRun", "GetJobRun", "GetJobRuns", "BatchStopJobRun")
    }
    minute: ClassVar[float] = 60.0

    def __init__(self, cloud: Any) -> None:
        super().__init__(cloud)
        self._children = Children()

    def permissions(self, operation: str, params: Params, caller: Caller) -> list[Permission]:
        return list(self.PERMISSIONS[operation](params, caller))

    def start(self) -> None:
        for key, run in self.cloud.store.list(KIND):
            if run["JobRunState"] not in _ENDED:
                end(run.get("Process"))
                self._end(key, Outcome("FAILED", LOST), Caller(**run["Caller"]))

    def stop(self) -> None:
        self._children.stop_all()

    # -- operations -----------------------------------------------------------------------------------

    def start_job_run(self, caller: Caller, params: Params) -> Params:
        if params.get("JobRunId"):
            raise Unsupported("glue:StartJobRun with JobRunId (run again) is not rehearsed; start a new run")
        job = self._job(params["JobName"], caller)
        run = _run(job, params, caller) | {"LogGroupName": self._log_group(job, caller)}
        key = _key(caller, run["JobName"], run["Id"])
        with self.cloud.store.transaction():
            self._check_concurrency(job, caller)
            self.cloud.store.put(KIND, key, run)
        threading.Thread(target=self._work, args=(key, caller), name=f"glue {run['Id']}", daemon=True).start()
        return {"JobRunId": run["Id"]}

    def get_job_run(self, caller: Caller, params: Params) -> Params:
        return {"JobRun": _shown(self._find(caller, params["JobName"], params["RunId"]))}

    def get_job_runs(self, caller: Caller, params: Params) -> Params:
        self._job(params["JobName"], caller)
        runs = [_shown(run) for run in reversed(self._runs(caller, params["JobName"]))]
        first = int(params.get("NextToken") or 0)
        last = first + params.get("MaxResults", 200)
        return {"JobRuns": runs[first:last], "NextToken": str(last) if len(runs) > last else None}

    def batch_stop_job_run(self, caller: Caller, params: Params) -> Params:
        submitted, errors = [], []
        for run in params["JobRunIds"]:
            named = {"JobName": params["JobName"], "JobRunId": run}
            try:
                self._stop(caller, params["JobName"], run)
                submitted.append(named)
            except ServiceError as error:
                errors.append({**named, "ErrorDetail": {"ErrorCode": error.code, "ErrorMessage": error.message}})
        return {"SuccessfulSubmissions": submitted, "Errors": errors}

    # -- state ----------------------------------------------------------------------------------------

    def _job(self, name: str, caller: Caller) -> Document:
        try:
            glue = self.cloud.client("glue", account=caller.account, region=caller.region)
            return dict(glue.get_job(JobName=name)["Job"])
        except ClientError as error:
            raise ServiceError(error.response["Error"]["Code"], error.response["Error"]["Message"]) from None

    def _log_group(self, job: Document, caller: Caller) -> str:
        """What the names of the run's groups begin with: an encrypted job's have security configuration and role."""
        name = job.get("SecurityConfiguration")
        if not name:
            return LOG_GROUP
        glue = self.cloud.client("glue", account=caller.account, region=caller.region)
        found = glue.get_security_configuration(Name=name)["SecurityConfiguration"]["EncryptionConfiguration"]
        encrypted = found.get("CloudWatchEncryption", {}).get("CloudWatchEncryptionMode") == "SSE-KMS"
        return f"{LOG_GROUP}/{name}-role/{job['Role'].rpartition('/')[2]}" if encrypted else LOG_GROUP

    def _runs(self, caller: Caller, job: str) -> list[Document]:
        prefix = _key(caller, job, "")
        return [run for key, run in self.cloud.store.list(KIND) if key.startswith(prefix)]

    def _find(self, caller: Caller, job: str, run: str) -> Document:
        found = self.cloud.store.get(KIND, _key(caller, job, run))
        if found is None:
            raise ServiceError("EntityNotFoundException", f"Job Run {run} of job {job} was not found")
        return found

    def _check_concurrency(self, job: Document, caller: Caller) -> None:
        most = job.get("ExecutionProperty", {}).get("MaxConcurrentRuns") or 1
        if sum(run["JobRunState"] not in _ENDED for run in self._runs(caller, job["Name"])) >= most:
            raise ServiceError("ConcurrentRunsExceededException", f"Concurrent runs exceeded for {job['Name']}")

    def _stop(self, caller: Caller, job: str, run: str) -> None:
        if self._find(caller, job, run)["JobRunState"] in _ENDED:
            raise ServiceError("InvalidInputException", f"Job run {run} has already ended")
        key = _key(caller, job, run)
        self._change(key, JobRunState="STOPPING")
        self._children.stop(key)

    def _change(self, key: str, **values: Any) -> Document:
        """Change a run; one that has ended stays as it is, whatever comes late."""

        def change(run: Document) -> None:
            if run["JobRunState"] in _ENDED:
                return
            if run["JobRunState"] == "STOPPING" and values.get("JobRunState") == "RUNNING":
                values.pop("JobRunState")
            run.update(values, LastModifiedOn=time.time())
            if run["JobRunState"] in _ENDED:
                # In the same change: who sees that a run has ended sees all of its end.
                seconds = run["LastModifiedOn"] - run["StartedOn"]
                run.update(CompletedOn=run["LastModifiedOn"], ExecutionTime=max(1, round(seconds)), Process=None)

        return self.cloud.store.update(KIND, key, change)

    # -- the run --------------------------------------------------------------------------------------

    def _work(self, key: str, caller: Caller) -> None:
        """Run the job to its end; whatever goes wrong is the run's failure, as nobody waits for this thread."""
        run = self._change(key, JobRunState="RUNNING")
        folder = self.cloud.state_dir.resolve() / "glue" / run["Id"]
        try:
            outcome = GlueRun(self.cloud, run, folder, caller).execute(
                lambda child: self._begun(key, child), lambda: self._children.asked(key), self.minute
            )
        except (ClientError, ServiceError, NoWayIn) as error:
            outcome = Outcome("FAILED", str(error))
        except Exception as error:
            outcome = Outcome("FAILED", f"{type(error).__name__}: {error}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lost = self._children.closing
            self._children.done(key)
        if not lost:
            self._end(key, outcome, caller)

    def _begun(self, key: str, child: Any) -> None:
        self._change(key, Process=child.identity)
        self._children.add(key, child)

    def _end(self, key: str, outcome: Outcome, caller: Caller) -> None:
        told = {"ErrorMessage": outcome.message} if outcome.message else {}
        run = self._change(key, JobRunState=outcome.state, **told)
        severity, message = _ENDED[outcome.state]
        self.cloud.emit(
            "aws.glue",
            "Glue Job State Change",
            {
                "jobName": run["JobName"],
                "severity": severity,
                "state": outcome.state,
                "jobRunId": run["Id"],
                "message": outcome.message or message,
            },
            [],
            caller,
        )


def _key(caller: Caller, job: str, run: str) -> str:
    return f"{caller.account}/{caller.region}/{job}/{run}"


def _shown(run: Document) -> Document:
    return {key: value for key, value in run.items() if key not in _PRIVATE}


def _run(job: Document, params: Params, caller: Caller) -> Document:
    """The new run's document; Unsupported if the job or the run asks for what a local Spark can't do faithfully."""
    _check_job(job)
    fixed = job.get("NonOverridableArguments") or {}
    if overridden := sorted(set(fixed) & set(params.get("Arguments") or {})):
        raise ServiceError("InvalidInputException", f"Non-overridable arguments {', '.join(overridden)} were given")
    given = {**(job.get("DefaultArguments") or {}), **(params.get("Arguments") or {}), **fixed}
    check_arguments(given)
    now = time.time()
    settings = {
        name: params.get(name) or job.get(name)
        for name in (
            "Timeout",
            "WorkerType",
            "NumberOfWorkers",
            "MaxCapacity",
            "SecurityConfiguration",
            "ExecutionClass",
        )
    }
    role = job["Role"] if job["Role"].startswith("arn:") else f"arn:aws:iam::{caller.account}:role/{job['Role']}"
    return {
        "Id": f"jr_{uuid.uuid4().hex}{uuid.uuid4().hex}",
        "Attempt": 0,
        "JobName": job["Name"],
        "JobMode": "SCRIPT",
        "StartedOn": now,
        "LastModifiedOn": now,
        "JobRunState": "STARTING",
        "Arguments": params.get("Arguments") or {},
        "GlueVersion": job["GlueVersion"],
        **{k: v for k, v in settings.items() if v is not None},
        "Timeout": settings["Timeout"] or 480,
        "Role": role,
        "Connections": (job.get("Connections") or {}).get("Connections") or [],
        "Script": {"location": given.get("--scriptLocation") or job["Command"]["ScriptLocation"], "arguments": given},
        "Caller": {"account": caller.account, "region": caller.region},
    }


def _check_job(job: Document) -> None:
    if job["Command"]["Name"] != "glueetl" or str(job["Command"].get("PythonVersion", "3")) != "3":
        raise Unsupported(f"Glue job {job['Name']}: only Spark jobs (glueetl) in Python 3 are rehearsed")
    if job.get("GlueVersion") != "5.1":
        raise Unsupported(f"Glue job {job['Name']}: GlueVersion {job.get('GlueVersion')} is not rehearsed; use 5.1")
    if job.get("MaxRetries"):
        raise Unsupported(f"Glue job {job['Name']}: MaxRetries is not rehearsed; retry in the state machine")
