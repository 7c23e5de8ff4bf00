"""Job arguments, resolved as Glue resolves them."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

_BOOKMARK = ("job-bookmark-enable", "job-bookmark-pause", "job-bookmark-disable")
_CONTINUATION = ("continuation-enabled", "continuation-readonly", "continuation-ignore")
_TEMPORARY = ("RedshiftTempDir", "TempDir")
_OF_GLUE = (
    "job-bookmark-option",
    "continuation-option",
    "job-bookmark-from",
    "job-bookmark-to",
    "JOB_ID",
    "JOB_RUN_ID",
    "SECURITY_CONFIGURATION",
    "encryption-type",
)


class GlueArgumentError(Exception):
    """An argument is missing or malformed."""


class GlueArgumentParser(argparse.ArgumentParser):
    """Raises where argparse would end the process, so that the job's error names the argument."""

    def error(self, message: str) -> NoReturn:
        raise GlueArgumentError(message)


def getResolvedOptions(args: list[str], options: list[str]) -> dict[str, Any]:
    """The values of `options` out of `args` (sys.argv); each is required, arguments not asked for are ignored.

    As in Glue, a name may be abbreviated by its caller, dashes become underscores in the result, and the result
    also has Glue's own arguments, None where they were not given.
    """
    for name in _OF_GLUE:
        if name in options:
            raise RuntimeError(f"Using reserved arguments --{name}")
    values = vars(_parser(options).parse_known_args(args[1:])[0])
    values["TempDir"] = values["RedshiftTempDir"] = values["TempDir"] or values["RedshiftTempDir"]
    return _with_bookmark(values)


def _parser(options: list[str]) -> GlueArgumentParser:
    parser = GlueArgumentParser()
    parser.add_argument("--job-bookmark-option", choices=_BOOKMARK)
    parser.add_argument("--continuation-option", choices=_CONTINUATION)
    parser.add_argument("--encryption-type", choices=("sse-s3",))
    for name in ("job-bookmark-from", "job-bookmark-to", "JOB_ID", "JOB_RUN_ID", "SECURITY_CONFIGURATION", *_TEMPORARY):
        parser.add_argument(f"--{name}")
    for name in options:
        if name not in _TEMPORARY:
            parser.add_argument(f"--{name}", required=True)
    return parser


def _with_bookmark(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with the old continuation option translated, and the rule on its range checked."""
    continuation = values.pop("continuation_option")
    if values["job_bookmark_option"] is None:
        number = _CONTINUATION.index(continuation) if continuation else _BOOKMARK.index("job-bookmark-disable")
        values["job_bookmark_option"] = _BOOKMARK[number]
    absent = [name for name in ("from", "to") if values[f"job_bookmark_{name}"] is None]
    if values["job_bookmark_option"] == "job-bookmark-pause":
        if len(absent) == 1:
            raise RuntimeError(f"Missing option or value for --job-bookmark-{absent[0]}")
    elif not absent:
        raise RuntimeError("Invalid option(s) --job-bookmark-from --job-bookmark-to")
    return values
