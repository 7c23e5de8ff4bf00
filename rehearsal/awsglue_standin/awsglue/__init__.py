"""A stand-in for the `awsglue` package of AWS Glue's Spark jobs, for scripts that work on Spark DataFrames.

It runs inside a job, under the Python of the job's image, so it needs nothing but the standard library and
pyspark. What it can't do as Glue does (dynamic frames, bookmarks, the catalog's connections) raises
NotImplementedError and says what to use instead.
"""
