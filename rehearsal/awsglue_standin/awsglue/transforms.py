# ruff: noqa: F822 (the names are made in the last line)
"""Glue's transforms of dynamic frames: importable, since its script template imports them all, and refused in use."""

from __future__ import annotations

from awsglue.dynamicframe import _Refuses

__all__ = [
    "ApplyMapping",
    "DropFields",
    "DropNullFields",
    "EvaluateDataQuality",
    "FillMissingValues",
    "Filter",
    "FindIncrementalMatches",
    "FindMatches",
    "FlatMap",
    "GlueTransform",
    "Join",
    "Map",
    "MapToCollection",
    "MergeDynamicFrames",
    "Relationalize",
    "RenameField",
    "ResolveChoice",
    "SelectFields",
    "SelectFromCollection",
    "Spigot",
    "SplitFields",
    "SplitRows",
    "Unbox",
    "UnnestFrame",
]
globals().update({name: _Refuses(name, (), {}) for name in __all__})
