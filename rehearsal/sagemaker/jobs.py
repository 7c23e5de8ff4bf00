"""What SageMaker's training and processing jobs share: names, permissions, the life of a job's process, its ending."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from rehearsal.child import Child, Children, Ended, end
from rehearsal.sagemaker.container import SAGEMAKER, Container, check_pull
from rehearsal.sagemaker.tags import Tags, request_tags, tagging
from rehearsal.service import Caller, Params, Permission, ServiceError, Unsupported, arn
from rehearsal.transfer import Transfer, place
from rehearsal.vpc import check_for_sagemaker

LOST = "InternalServerError: lost when the rehearsal stopped"
ENDED = ("Completed", "Failed", "Stopped")
NAME = re.compile(r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$")
ROLE = re.compile(r"^arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+$")
Document = dict[str, Any]


class JobFailed(Exception):
    """The job ends as Failed with this reason."""


class Jobs(Tags):
    """The processes of this service's jobs."""

    grace: ClassVar[float] = 120.0
    """Seconds between SIGTERM and SIGKILL."""

    def __init__(self, cloud: Any) -> None:
        super().__init__(cloud)
        self._children = Children()

    def stop(self) -> None:
        self._children.stop_all()
        super().stop()

    def _lost(self, kind: str, status: str, fail: Callable[[str, str], None]) -> None:
        """Fail what an earlier process left running, and end what is left of it."""
        for key, job in self.cloud.store.list(kind):
            if job[status] not in ENDED:
                end(job.get("Process"))
                fail(key, LOST)

    def _accept(self, kind: str, job: Document, name: str, caller: Caller, params: Params, vpc: Params | None) -> None:
        """Check what AWS checks before it answers, and keep the job."""
        if not NAME.match(params[name]):
            raise ServiceError("ValidationException", f"{name} {params[name]!r} must match {NAME.pattern}")
        if not ROLE.match(params["RoleArn"]):
            raise ServiceError("ValidationException", f"RoleArn {params['RoleArn']!r} is no role's ARN")
        self._check_role(params["RoleArn"], caller)
        check_for_sagemaker(self.cloud, vpc, params["RoleArn"], caller)
        with self.cloud.store.transaction():
            if self.cloud.store.get(kind, job["Arn"]):
                raise ServiceError("ResourceInUse", f"{name} must be unique: {job['Arn']} already exists")
            self.cloud.store.put(kind, job["Arn"], job)
            self.tag(job["Arn"], params.get("Tags"))

    def _check_role(self, role: str, caller: Caller) -> None:
        try:
            self._s3(role, caller, "SageMaker")
        except ServiceError as error:
            raise ServiceError(
                "ValidationException",
                f"Could not assume role {role}. Please ensure that the role exists and allows "
                f"principal '{SAGEMAKER}' to assume the role. ({error.message})",
            ) from None

    def _s3(self, role: str, caller: Caller, session: str) -> Transfer:
        return Transfer(
            self.cloud.client(
                "s3", role=role, by=SAGEMAKER, account=caller.account, region=caller.region, session=session
            )
        )

    def _found(self, kind: str, key: str) -> Document:
        job = self.cloud.store.get(kind, key)
        if job is None:
            raise ServiceError("ValidationException", "Requested resource not found.")
        return job

    def _in_background(self, work: Callable[[], None], name: str) -> None:
        threading.Thread(target=work, name=name, daemon=True).start()

    def _attempt(self, key: str, work: Callable[[], None], fail: Callable[[str, str], None], folder: Path) -> None:
        """Do a job's work; whatever goes wrong is the job's failure, as nobody waits for this thread."""
        reason = ""
        try:
            work()
        except JobFailed as error:
            reason = str(error)
        except (ClientError, ServiceError) as error:
            reason = f"ClientError: {error}"
        except Exception as error:
            reason = f"InternalServerError: {type(error).__name__}: {error}"
        finally:
            lost = self._children.closing
            self._children.done(key)
            shutil.rmtree(folder, ignore_errors=True)
        if reason and not lost:
            fail(key, reason)

    def _pull(self, image: str, role: str, caller: Caller) -> None:
        try:
            check_pull(self.cloud, image, role, caller)
        except ServiceError as error:
            raise JobFailed(f"ClientError: Cannot pull {image}: {error.message}") from None

    def _download(self, s3: Transfer, uri: str, target: Path, role: str) -> None:
        """What lies under `uri`, into `target`; JobFailed with SageMaker's words if there is nothing."""
        if not s3.download_prefix(place(uri), target):
            raise JobFailed(
                f'ClientError: Data download failed:No S3 objects found under S3 URL "{uri}" given in input data '
                "source. Please ensure that the bucket exists in the selected region, that objects exist under that "
                f'S3 prefix, and that the role "{role}" has "s3:ListBucket" permissions on the bucket.'
            )

    def _run(
        self,
        kind: str,
        key: str,
        container: Container,
        command: list[str],
        *,
        cwd: Path,
        env: dict[str, str],
        out: Callable[[str], None],
        limit: float,
    ) -> Ended:
        """Run the container's process to its end, recorded so that a later rehearsal can find it."""
        child = Child(command, cwd=cwd, env=env, out=out)
        self.cloud.store.update(kind, key, lambda job: job.update(Process=child.identity))
        self._children.add(key, child)
        return child.wait(limit, self.grace)

    def _job_folder(self, kind: str, caller: Caller, name: str) -> Path:
        return self.cloud.state_dir.resolve() / "sagemaker" / kind / caller.account / caller.region / name


def on_job(operation: str, resource: str, name: str) -> Callable[[Params, Caller], list[Permission]]:
    return lambda params, caller: [
        Permission(f"sagemaker:{operation}", arn("sagemaker", caller, f"{resource}/{params[name]}"))
    ]


def creation(action: str, made: str, params: Params, context: Params) -> list[Permission]:
    """The checks of a job's creation: the action itself, passing the role, and tagging."""
    role = Permission("iam:PassRole", params["RoleArn"], {"iam:PassedToService": SAGEMAKER})
    return [Permission(action, made, {**context, **request_tags(params)}), role, *tagging(made, params)]


def refuse(params: Params, what: str, *names: str) -> None:
    """Unsupported, naming them, if any of these members is set."""
    if given := [name for name in names if params.get(name)]:
        raise Unsupported(f"{what}: {', '.join(given)} {'are' if len(given) > 1 else 'is'} not rehearsed")


def check_instance(resources: Params) -> None:
    """One instance, of a type that is named."""
    if resources.get("InstanceCount", 1) != 1:
        raise Unsupported("a job on several instances is not rehearsed; set InstanceCount to 1")
    if not resources.get("InstanceType"):
        raise ServiceError("ValidationException", "InstanceType must be given")


def stamp() -> float:
    return round(time.time(), 3)
