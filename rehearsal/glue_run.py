"""One Glue job run: its folder, its data, its Spark process and the reason it ended."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehearsal import spark
from rehearsal.child import Child, Ended
from rehearsal.environments import interpreter, scrubbed
from rehearsal.service import Caller, Cloud, Unsupported
from rehearsal.transfer import Place, Transfer, place, within
from rehearsal.vpc import check_for_glue

GLUE = "glue.amazonaws.com"
GRACE = 10.0
STANDIN = Path(__file__).parent / "awsglue_standin"

# What Glue itself reads. None: any value is accepted and only recorded, as it changes nothing on one machine.
_SPECIAL: dict[str, tuple[str, ...] | None] = {
    "--scriptLocation": None,
    "--extra-py-files": None,
    "--conf": None,
    "--TempDir": None,
    "--job-language": ("python",),
    "--job-bookmark-option": ("job-bookmark-disable",),
    "--enable-metrics": None,
    "--enable-observability-metrics": None,
    "--enable-job-insights": None,
    "--enable-continuous-cloudwatch-log": None,
    "--enable-continuous-log-filter": None,
    "--enable-auto-scaling": None,
    "--enable-s3-parquet-optimized-committer": None,
    "--enable-spark-ui": ("false",),
    "--enable-glue-datacatalog": ("false",),
}
_REFUSED = (
    "--additional-python-modules",
    "--python-modules-installer-option",
    "--extra-jars",
    "--extra-files",
    "--user-jars-first",
    "--datalake-formats",
    "--encryption-type",
    "--spark-event-logs-path",
    "--class",
    "--continuous-log-logGroup",
    "--continuous-log-logStreamPrefix",
    "--continuous-log-conversionPattern",
    "--customer-driver-env-vars",
    "--customer-executor-env-vars",
    "--enable-lakeformation-fine-grained-access",
    "--use-postgres-driver",
    "--disable-proxy-v2",
    "--executor-cores",
    "--write-shuffle-files-to-s3",
    "--write-shuffle-spills-to-s3",
    "--debug",
    "--mode",
    "--JOB_NAME",
)
_ERROR = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?([A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt)\w*)(: .*)?$")
_CAUSE = "Caused by: "


def check_arguments(arguments: dict[str, str]) -> None:
    """Unsupported, naming them, if there are arguments that Glue acts upon and a local Spark can't honour."""
    refused = [name for name in arguments if name in _REFUSED]
    refused += [
        f"{name}={arguments[name]}"
        for name, allowed in _SPECIAL.items()
        if allowed is not None and name in arguments and arguments[name] not in allowed
    ]
    if refused:
        raise Unsupported(f"Glue arguments {', '.join(refused)} are not rehearsed")


@dataclass(frozen=True)
class Outcome:
    """The state a run ends in, and Glue's error message if it did not succeed."""

    state: str
    message: str = ""


class GlueRun:
    """Prepares the folder, runs Spark in it, and brings back what the script wrote, also when it failed."""

    def __init__(self, cloud: Cloud, run: dict[str, Any], folder: Path, caller: Caller) -> None:
        self._cloud, self._run, self._folder, self._caller = cloud, run, folder, caller
        self._arguments: dict[str, str] = run["Script"]["arguments"]
        self._s3 = Transfer(
            cloud.client(
                "s3", role=run["Role"], by=GLUE, account=caller.account, region=caller.region, session=run["Id"][:64]
            )
        )
        self._data = folder / "s3"
        self._last_error, self._java_cause, self._in_traceback = "", "", False

    def execute(self, begun: Callable[[Child], None], asked: Callable[[], bool], minute: float) -> Outcome:
        """Run to the end. `begun` is told the process; a stop that was `asked` for before that ends the run."""
        for connection in self._run["Connections"]:
            check_for_glue(self._cloud, connection, self._run["Role"], self._caller)
        script = self._prepare()
        self._data.mkdir(parents=True, exist_ok=True)
        before = self._snapshot()
        if asked():
            return Outcome("STOPPED")
        child = Child(
            self._command(script),
            cwd=self._folder,
            env=self._environment(),
            out=self._stream("output"),
            err=self._stream("error"),
        )
        begun(child)
        ended = child.wait(self._run["Timeout"] * minute, GRACE)
        self._bring_back(before)
        return self._outcome(ended)

    def _prepare(self) -> Path:
        """Fetch script, modules and data."""
        location = place(self._run["Script"]["location"])
        script = self._folder / "script" / location.key.rpartition("/")[2]
        modules = [place(uri.strip()) for uri in self._arguments.get("--extra-py-files", "").split(",") if uri.strip()]
        self._s3.download([(location, script), *((module, self._module(module)) for module in modules)])
        for prefix in self._prefixes():
            keys = [key for key in self._s3.keys(prefix) if key == prefix.key or _below(key, prefix.key)]
            self._s3.download((Place(prefix.bucket, key), within(self._data / prefix.bucket, key)) for key in keys)
        return script

    def _module(self, module: Place) -> Path:
        return self._folder / "modules" / module.key.rpartition("/")[2]

    def _prefixes(self) -> list[Place]:
        """The S3 addresses among the arguments that are the script's own."""
        return [
            place(value)
            for name, value in self._arguments.items()
            if name not in _SPECIAL and value.startswith("s3://")
        ]

    def _settings(self) -> dict[str, str]:
        """Spark's: its addresses s3://bucket/ are folders of the run."""
        buckets = {prefix.bucket for prefix in self._prefixes()} | {place(self._run["Script"]["location"]).bucket}
        if "--TempDir" in self._arguments:
            buckets.add(place(self._arguments["--TempDir"]).bucket)
        return {
            "spark.driver.memory": "2g",
            "spark.sql.shuffle.partitions": "8",
            "spark.sql.warehouse.dir": (self._folder / "warehouse").as_uri(),
            **spark.s3_as_folders(self._data, buckets),
            **_conf(self._arguments.get("--conf", "")),
        }

    def _command(self, script: Path) -> list[str]:
        """The script itself as Spark's driver: through spark-submit its errors would go to the output stream."""
        identity = {
            "--JOB_NAME": self._run["JobName"],
            "--JOB_ID": f"j_{self._run['JobName']}",
            "--JOB_RUN_ID": self._run["Id"],
            "--job-bookmark-option": "job-bookmark-disable",
        }
        own = {name: value for name, value in self._arguments.items() if name not in _SPECIAL or name == "--TempDir"}
        passed = [word for pair in {**identity, **own}.items() for word in pair]
        return [str(interpreter(spark.IMAGE)), str(script), *passed]

    def _environment(self) -> dict[str, str]:
        modules = self._folder / "modules"
        path = [str(STANDIN), *(str(p) for p in sorted(modules.glob("*"))), str(modules)]
        variables = scrubbed(
            **self._cloud.environment(self._run["Role"], GLUE, region=self._caller.region, session=self._run["Id"][:64])
        )
        variables["PATH"] = f"{interpreter(spark.IMAGE).parent}:{variables['PATH']}"
        return {
            **variables,
            **spark.variables(self._folder, self._settings()),
            "PYTHONPATH": ":".join(path),
            "HOME": str(self._folder),
            "TMPDIR": str(self._folder / "tmp"),
        }

    def _stream(self, name: str) -> Callable[[str], None]:
        group = f"{self._run['LogGroupName']}/{name}"
        log = self._cloud.logs(group, self._run["Id"], self._caller, role=self._run["Role"], by=GLUE)

        def write(line: str) -> None:
            if name == "error":
                self._look_for_error(line)
            log.write(line)

        return write

    def _look_for_error(self, line: str) -> None:
        """Keep what a traceback ends with; after an error in Java also the cause, which comes last."""
        if line.startswith("Traceback (most recent call last)"):
            self._in_traceback = True
        elif self._in_traceback and (found := _ERROR.match(line)):
            self._last_error, self._in_traceback = found[1] + (found[2] or ""), False
        elif self._last_error.startswith("Py4JJavaError") and line.startswith((": ", _CAUSE)):
            self._java_cause = line.removeprefix(_CAUSE).removeprefix(": ").strip()

    def _snapshot(self) -> dict[Path, tuple[int, int]]:
        """Every file of the data but checksums and what an unfinished write left, with time and size."""
        return {
            path: (path.stat().st_mtime_ns, path.stat().st_size)
            for path in self._data.rglob("*")
            if path.is_file() and not path.name.endswith(".crc") and "_temporary" not in path.parts
        }

    def _bring_back(self, before: dict[Path, tuple[int, int]]) -> None:
        after = self._snapshot()
        self._s3.delete(self._place(path) for path in before if path not in after)
        self._s3.upload((path, self._place(path)) for path, state in after.items() if before.get(path) != state)

    def _place(self, path: Path) -> Place:
        bucket, *key = path.relative_to(self._data).parts
        return Place(bucket, "/".join(key))

    def _outcome(self, ended: Ended) -> Outcome:
        if ended.reason == "stopped":
            return Outcome("STOPPED")
        if ended.reason == "timeout":
            return Outcome("TIMEOUT", f"Job run exceeded its timeout of {self._run['Timeout']} minutes")
        if ended.code == 0:
            return Outcome("SUCCEEDED")
        told = f"{self._last_error} {self._java_cause}".strip()
        reason = told or f"Command failed with exit code {ended.code}"
        return Outcome("FAILED", f"{reason} (log: {self._run['LogGroupName']}/error, stream {self._run['Id']})")


def _below(key: str, prefix: str) -> bool:
    return key.startswith(prefix if prefix.endswith("/") or not prefix else f"{prefix}/")


def _conf(value: str) -> dict[str, str]:
    """Spark settings of Glue's one `--conf` argument, which holds several as `a=b --conf c=d`."""
    pairs = (part.strip().partition("=") for part in value.split("--conf") if part.strip())
    return {name: setting for name, _, setting in pairs}
