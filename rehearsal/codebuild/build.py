"""One build, from its source's download to its artifacts' upload."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.codebuild import artifacts
from rehearsal.codebuild.buildspec import Artifact, Buildspec, BuildspecError, Phase, parse
from rehearsal.codebuild.shell import TIMED_OUT, Interrupted, Shell
from rehearsal.environments import cache, interpreter, scrubbed
from rehearsal.service import Caller, Cloud, Params, ServiceError, arn

KIND = "codebuild/build"
PRINCIPAL = "codebuild.amazonaws.com"
IMAGE = "codebuild"
LAST_LINES = 15
"""So many lines of a failed command's output go into its phase's context."""
OUT_OF_THE_SHELL = ("install", "pre_build")
"""A failure in these ends the build; after a failed `build`, `post_build` still runs."""


class PhaseFailed(Exception):
    """A phase did not succeed; code and message as CodeBuild words them."""

    def __init__(self, code: str, message: str, status: str = "FAILED") -> None:
        super().__init__(message)
        self.code, self.status = code, status


class Build:
    """Runs one build; its document in the store is what `BatchGetBuilds` answers."""

    def __init__(self, cloud: Cloud, build_id: str, changed: Callable[[Params], None]) -> None:
        self.cloud, self.id, self._changed = cloud, build_id, changed
        self.document = self._read()
        self.caller = Caller(self.document["account"], self.document["region"])
        self._project = arn("codebuild", self.caller, f"project/{self.document['projectName']}")
        logs = self.document["logs"]
        acting: dict[str, str] = {"role": self.role, "by": PRINCIPAL, "source": self._project}
        self._log = (
            cloud.logs(logs["groupName"], logs["streamName"], self.caller, **acting)
            if logs["cloudWatchLogs"]["status"] == "ENABLED"
            else None
        )
        self._deadline = time.time() + 60 * self.document["timeoutInMinutes"]
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._shell: Shell | None = None
        self._stopped = self._abandoned = False
        self._status = "SUCCEEDED"

    @property
    def role(self) -> str:
        return str(self.document["serviceRole"])

    def stop(self) -> None:
        self._stopped = True
        if self._shell is not None:
            self._shell.stop()

    def abandon(self) -> None:
        """End the processes and leave the record as it is: the next start says that the build was lost."""
        self._abandoned = True
        self.stop()

    def run(self) -> None:
        """To the end, whatever happens; the outcome is in the document."""
        place = self.cloud.state_dir.resolve() / "codebuild"
        place.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="build-", dir=place))
        try:
            self._all(folder)
        finally:
            if self._shell is not None:
                self._shell.close()
            shutil.rmtree(folder, ignore_errors=True)
            self._finish()

    def _all(self, folder: Path) -> None:
        source, private = folder / "src", folder / "private"
        private.mkdir()
        with self._phase("DOWNLOAD_SOURCE"):
            spec = self._download(source, folder)
            self._shell = Shell(
                spec.shell, source, private, self._environment(spec, source), self._tell, self._deadline
            )
        if self._status != "SUCCEEDED":
            return
        if self._commands(spec):
            with self._phase("UPLOAD_ARTIFACTS"):
                self._exported(spec)
                self._upload(spec, source, folder)

    # -- phases -----------------------------------------------------------------------------------------

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.time()
        self._say(f"Entering phase {name}")
        self._write(
            lambda d: (d.update(currentPhase=name), d["phases"].append({"phaseType": name, "startTime": started}))
        )
        status, context = "SUCCEEDED", {"statusCode": "", "message": ""}
        try:
            yield
        except PhaseFailed as failure:
            status, context = failure.status, {"statusCode": failure.code, "message": str(failure)}
        except Interrupted as end:
            status = end.status
            if status == TIMED_OUT:
                minutes = self.document["timeoutInMinutes"]
                context = {"statusCode": "BUILD_TIMED_OUT", "message": f"Build has timed out after {minutes} minutes. "}
        except (BuildspecError, artifacts.ArtifactError, ServiceError, ClientError, BotoCoreError, OSError) as error:
            code = "YAML_FILE_ERROR" if isinstance(error, BuildspecError) else "CLIENT_ERROR"
            status, context = "FAILED", {"statusCode": code, "message": str(error)}
        self._say(f"Phase complete: {name} State: {status}")
        self._say(f"Phase context status code: {context['statusCode']} Message: {context['message']}")
        if status != "SUCCEEDED" and self._status == "SUCCEEDED":
            self._status = status
        done = {
            "phaseStatus": status,
            "endTime": time.time(),
            "contexts": [context],
            "durationInSeconds": int(time.time() - started),
        }
        self._write(lambda d: d["phases"][-1].update(done))

    def _commands(self, spec: Buildspec) -> bool:
        """Every phase of the buildspec as far as failures let it; whether artifacts are to be uploaded."""
        for name, phase in spec.phases.items():
            before = self._status
            with self._phase(name.upper()):
                self._run_phase(phase)
            if self._status in ("TIMED_OUT", "STOPPED"):
                return False
            if self._status != before:
                ends = name in OUT_OF_THE_SHELL if phase.continues is None else not phase.continues
                if ends:
                    return False
                self._run("export CODEBUILD_BUILD_SUCCEEDING=0")
        return True

    def _run_phase(self, phase: Phase) -> None:
        try:
            for command in phase.commands:
                self._command(command)
        finally:
            for command in phase.last if not self._stopped else ():
                self._command(command)

    def _command(self, command: str) -> None:
        self._last.clear()
        self._say(f"Running command {command}")
        status = self._run(command)
        if status:
            last = "\n".join(self._last)
            raise PhaseFailed(
                "COMMAND_EXECUTION_ERROR",
                f"Error while executing command: {command.strip()}. "
                f"Reason: exit status {status}" + (f"\n{last}" if last else ""),
            )

    def _run(self, command: str) -> int:
        assert self._shell is not None
        if self._stopped:
            raise Interrupted("STOPPED")
        return self._shell.run(command)

    # -- what goes in -----------------------------------------------------------------------------------

    def _download(self, source: Path, folder: Path) -> Buildspec:
        source.mkdir()
        if self.document["source"]["type"] == "CODEPIPELINE":
            bucket, _, key = self.document["sourceVersion"].removeprefix("arn:aws:s3:::").partition("/")
            archive = folder / "input.zip"
            self._client("s3").download_file(bucket, key, str(archive))
            artifacts.unpack(archive, source)
        return parse(self._buildspec(source))

    def _buildspec(self, source: Path) -> str:
        named = str(self.document["source"].get("buildspec") or "buildspec.yml")
        if "\n" in named or named.lstrip().startswith(("{", "version:")):
            return named
        place = (source / named).resolve()
        if not place.is_relative_to(source.resolve()) or not place.is_file():
            raise BuildspecError(f"stat {named}: no such file or directory")
        return place.read_text()

    def _environment(self, spec: Buildspec, source: Path) -> dict[str, str]:
        """Later ones win: buildspec, then project and start override, then what the service itself sets."""
        place, held = str(interpreter(IMAGE).parent), cache().resolve()
        tools = scrubbed()
        given = {v["name"]: self._value(v) for v in self.document["environment"].get("environmentVariables", [])}
        parameters = {k: self._parameter(v) for k, v in spec.parameters.items()}
        name, _, unique = self.id.partition(":")
        own = {
            "CODEBUILD_BUILD_ID": self.id,
            "CODEBUILD_BUILD_ARN": self.document["arn"],
            "CODEBUILD_CI": "true",
            "CODEBUILD_BUILD_NUMBER": str(self.document["buildNumber"]),
            "CODEBUILD_BUILD_SUCCEEDING": "1",
            "CODEBUILD_BUILD_IMAGE": self.document["environment"]["image"],
            "CODEBUILD_SRC_DIR": str(source),
            "CODEBUILD_INITIATOR": self.document["initiator"],
            "CODEBUILD_LOG_PATH": unique,
            "CODEBUILD_SOURCE_VERSION": self.document.get("sourceVersion", ""),
            "CODEBUILD_PROJECT_NAME": name,
            "CODEBUILD_START_TIME": str(int(1000 * self.document["startTime"])),
            "CODEBUILD_RESOLVED_SOURCE_VERSION": self.document.get("resolvedSourceVersion", ""),
        }
        home = source.parent / "home"
        home.mkdir()
        caches = {"UV_CACHE_DIR": str(held / "uv"), "PIP_CACHE_DIR": str(held / "pip")}
        path = f"{place}:{tools.get('PATH', '/usr/bin:/bin')}"
        session = f"AWSCodeBuild-{unique}"
        role = self.cloud.environment(
            self.role, PRINCIPAL, region=self.caller.region, session=session, source=self._project
        )
        return {
            **tools,
            **caches,
            **spec.variables,
            **parameters,
            **given,
            **own,
            **role,
            "PATH": path,
            "HOME": str(home),
        }

    def _value(self, variable: Params) -> str:
        if variable.get("type", "PLAINTEXT") == "PARAMETER_STORE":
            return self._parameter(variable["value"])
        return str(variable["value"])

    def _parameter(self, name: str) -> str:
        found = self._client("ssm").get_parameter(Name=name, WithDecryption=True)
        return str(found["Parameter"]["Value"])

    # -- what goes out ----------------------------------------------------------------------------------

    def _exported(self, spec: Buildspec) -> None:
        assert self._shell is not None
        if spec.exported:
            values = [{"name": k, "value": v} for k, v in self._shell.exported(spec.exported).items()]
            self._write(lambda d: d.update(exportedEnvironmentVariables=values))

    def _upload(self, spec: Buildspec, source: Path, folder: Path) -> None:
        self._put(spec.artifact, self.document.get("wanted"), source, folder, "artifacts")
        for wanted in self.document.get("wantedToo", []):
            self._put(spec.secondary.get(wanted["artifactIdentifier"]), wanted, source, folder, "secondaryArtifacts")

    def _put(self, artifact: Artifact | None, wanted: Params | None, source: Path, folder: Path, member: str) -> None:
        if not wanted or wanted["type"] == "NO_ARTIFACTS":
            return
        if artifact is None:
            missing = wanted.get("artifactIdentifier", "artifacts")
            raise PhaseFailed("CLIENT_ERROR", f"the buildspec defines no artifact {missing}")
        packed = folder / "output.zip"
        artifacts.pack(artifact, source, packed)
        place = "/".join(part.strip("/") for part in (wanted.get("path", ""), wanted["name"]) if part)
        encryption = (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.document["encryptionKey"]}
            if self.document.get("encryptionKey")
            else {}
        )
        with packed.open("rb") as body:
            self._client("s3").put_object(Bucket=wanted["location"], Key=place, Body=body, **encryption)
        made = {
            "location": f"arn:aws:s3:::{wanted['location']}/{place}",
            "sha256sum": hashlib.sha256(packed.read_bytes()).hexdigest(),
        }
        if member == "artifacts":
            self._write(lambda d: d.update(artifacts=made))
        else:
            made["artifactIdentifier"] = wanted["artifactIdentifier"]
            self._write(lambda d: d.setdefault("secondaryArtifacts", []).append(made))

    # -- the record -------------------------------------------------------------------------------------

    def _finish(self) -> None:
        # First: who sees that the build is complete finds its whole log.
        if (flush := getattr(self._log, "flush", None)) is not None:
            flush()
        now = time.time()
        ending = [
            {
                "phaseType": "FINALIZING",
                "phaseStatus": "SUCCEEDED",
                "startTime": now,
                "endTime": now,
                "durationInSeconds": 0,
                "contexts": [{"statusCode": "", "message": ""}],
            },
            {"phaseType": "COMPLETED", "startTime": now},
        ]
        self._write(
            lambda d: (
                d["phases"].extend(ending),
                d.update(buildStatus=self._status, buildComplete=True, endTime=now, currentPhase="COMPLETED"),
            )
        )

    def _client(self, service: str) -> Any:
        place = {"account": self.caller.account, "region": self.caller.region}
        return self.cloud.client(service, role=self.role, by=PRINCIPAL, source=self._project, **place)

    def _tell(self, line: str) -> None:
        self._last.append(line)
        if self._log is not None:
            self._log.write(line)

    def _say(self, text: str) -> None:
        if self._log is not None:
            now = dt.datetime.now(dt.UTC).strftime("%Y/%m/%d %H:%M:%S.%f")
            self._log.write(f"[Container] {now} {text}")

    def _read(self) -> Params:
        document = self.cloud.store.get(KIND, self.id)
        if document is None:
            raise KeyError(self.id)
        return document

    def _write(self, change: Callable[[Params], Any]) -> None:
        if self._abandoned:
            return
        with contextlib.suppress(KeyError):  # deleted meanwhile
            self.document = self.cloud.store.update(KIND, self.id, change)
            self._changed(self.document)
