"""GlueContext over the local Spark session."""

from __future__ import annotations

import warnings
from typing import Any, NoReturn

from pyspark import SparkContext
from pyspark.sql import SparkSession, SQLContext

_DYNAMIC = frozenset(
    {
        "add_ingestion_time_columns",
        "begin_transaction",
        "cancel_transaction",
        "commit_transaction",
        "create_data_frame",
        "create_data_frame_from_catalog",
        "create_data_frame_from_options",
        "create_dynamic_frame",
        "create_dynamic_frame_from_catalog",
        "create_dynamic_frame_from_options",
        "create_dynamic_frame_from_rdd",
        "create_sample_dynamic_frame_from_catalog",
        "create_sample_dynamic_frame_from_options",
        "extract_jdbc_conf",
        "forEachBatch",
        "getSampleSource",
        "getSink",
        "getSource",
        "get_catalog_schema_as_spark_schema",
        "purge_s3_path",
        "purge_table",
        "start_transaction",
        "transition_s3_path",
        "transition_table",
        "write_data_frame",
        "write_data_frame_from_catalog",
        "write_dynamic_frame",
        "write_dynamic_frame_from_catalog",
        "write_dynamic_frame_from_jdbc_conf",
        "write_dynamic_frame_from_options",
        "write_from_jdbc_conf",
        "write_from_options",
    }
)


class GlueContext(SQLContext):
    """What Glue's context adds to Spark's: `spark_session` and `get_logger`; the rest is refused."""

    def __init__(self, sparkContext: SparkContext, **options: Any) -> None:
        if unknown := set(options) - {"minPartitions", "targetPartitions"}:
            raise NotImplementedError(f"GlueContext({', '.join(sorted(unknown))}=…) is not rehearsed")
        session = SparkSession.builder.getOrCreate()
        with warnings.catch_warnings():  # Spark calls SQLContext deprecated; Glue's context still is one
            warnings.simplefilter("ignore", FutureWarning)
            super().__init__(sparkContext, session)
        self.spark_session = session

    def get_logger(self) -> Any:
        """A logger with `info`, `warn` and `error` that writes to the job's error stream, as Glue's does."""
        jvm: Any = self.spark_session.sparkContext._jvm
        return jvm.org.apache.log4j.LogManager.getLogger("GlueLogger")

    def __getattr__(self, name: str) -> NoReturn:
        if name in _DYNAMIC:
            raise NotImplementedError(
                f"GlueContext.{name} is not rehearsed: read and write Spark DataFrames through "
                "spark_session.read and DataFrame.write, which work the same in Glue"
            )
        raise AttributeError(f"'GlueContext' object has no attribute '{name}'")
