"""What feature jobs do: a job whose classes Java keeps in an archive, from which later jobs take them (`spark.py`).

Run by the image's interpreter, in a folder of its own.
"""

from datetime import date, timedelta
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

BUCKET = "s3://data"
DAYS = [(date(2013, 1, 1) + timedelta(days=day)).isoformat() for day in range(4)]


def main() -> None:
    """Let days land in three formats, read, check and join them, and write train, holdout and baseline."""
    spark = SparkSession.builder.getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    land(spark)
    rows = joined(read(spark), extra(spark))
    check(rows)
    write(spark, rows)


def land(spark: SparkSession) -> None:
    rows = [(day, n, f"key-{n}", n / 3, n % 2) for day in DAYS for n in range(8)]
    made = spark.createDataFrame(rows, "dt string, n long, key string, x double, label int")
    made.write.partitionBy("dt").mode("overwrite").parquet(f"{BUCKET}/raw")
    made.limit(3).coalesce(1).write.mode("overwrite").json(f"{BUCKET}/json")
    made.coalesce(1).write.mode("overwrite").option("header", True).csv(f"{BUCKET}/csv")


def read(spark: SparkSession) -> DataFrame:
    pattern = f"{BUCKET}/raw/dt=*/*.parquet"
    found = [status.getPath().toString() for status in _files(spark, pattern).globStatus(_path(spark, pattern))]
    raw = spark.read.option("basePath", f"{BUCKET}/raw").option("mergeSchema", True).parquet(*sorted(found))
    return raw.withColumn("dt", F.to_date("dt")).where(
        F.col("dt").between(F.lit(date(2013, 1, 1)), F.lit(date.today()))
    )


def extra(spark: SparkSession) -> DataFrame:
    lines = spark.read.csv(f"{BUCKET}/csv", header=True).select("key", F.col("x").cast("double").alias("y"))
    return lines.union(spark.read.json(f"{BUCKET}/json").select("key", F.col("x").alias("y"))).dropDuplicates(["key"])


def joined(rows: DataFrame, lines: DataFrame) -> DataFrame:
    newest = F.row_number().over(Window.partitionBy("key", "dt").orderBy(F.desc("n")))
    return rows.join(F.broadcast(lines), "key", "left").withColumn("place", newest).where("place = 1").cache()


def check(rows: DataFrame) -> None:
    broken = F.greatest(*(F.col(name).isNull() for name in ("n", "key", "x"))) | ~F.col("label").isin(0, 1)
    rows.agg(*(F.sum(F.when(broken, 1).otherwise(0)).alias(f"rule_{n}") for n in range(2))).collect()
    rows.where(broken).take(3)
    rows.groupBy("key", "dt").count().where("count > 1").count()


def write(spark: SparkSession, rows: DataFrame) -> None:
    held_out = F.date_format("dt", "yyyy-MM-dd") >= DAYS[-1]
    rows.groupBy(held_out).count().collect()
    for name, frame in (("train", rows.where(~held_out)), ("holdout", rows.where(held_out))):
        frame.coalesce(1).write.mode("overwrite").parquet(f"{BUCKET}/{name}")
    some = rows.where(F.pmod(F.xxhash64("key", "n"), F.lit(3)) < 2)
    week = F.date_format(F.date_trunc("week", F.col("dt")), "yyyy-MM-dd")
    weekly = some.withColumn("period", week).repartition("period").write.partitionBy("period")
    weekly.mode("overwrite").parquet(f"{BUCKET}/baseline")
    quality = f"{BUCKET}/quality.json"
    stream = _files(spark, quality).create(_path(spark, quality), True)
    stream.write(bytearray("{}", "utf-8"))
    stream.close()


def _path(spark: SparkSession, address: str) -> Any:
    jvm: Any = spark.sparkContext._jvm
    return jvm.org.apache.hadoop.fs.Path(address)


def _files(spark: SparkSession, address: str) -> Any:
    """Hadoop's file system of an address."""
    return _path(spark, address).getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())


if __name__ == "__main__":
    main()
