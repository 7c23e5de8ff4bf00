"""What every `List…` of SageMaker shares: filters, order and pages that don't shift when something is added."""

from __future__ import annotations

import base64
import json
from typing import Any

from rehearsal.service import Params, ServiceError

Document = dict[str, Any]
PAGE = 10
"""SageMaker's page size where the caller names none."""


def page(
    documents: list[Document], params: Params, *, name: str, key: str, status: str = "", order: str = "Descending"
) -> tuple[list[Document], str | None]:
    """The page of `documents` that `params` ask for, and the token of the next one.

    `name` is the member NameContains and SortBy=Name read, `key` a unique one, `status` the one SortBy=Status reads."""
    by = {"Name": name, "Status": status}.get(params.get("SortBy", ""), "CreationTime")

    def rank(document: Document) -> list[Any]:
        return [document[by], document.get("ModelPackageVersion", 0), document[key]]

    reverse = params.get("SortOrder", order) == "Descending"
    found = sorted((d for d in documents if _matches(d, params, name)), key=rank, reverse=reverse)
    if token := params.get("NextToken"):
        last = _decode(token)
        found = [d for d in found if (rank(d) < last if reverse else rank(d) > last)]
    size = params.get("MaxResults", PAGE)
    more = len(found) > size
    return found[:size], _encode(rank(found[size - 1])) if more else None


def _matches(document: Document, params: Params, name: str) -> bool:
    created: float = document["CreationTime"]
    modified: float = document.get("LastModifiedTime", created)
    return (
        str(params.get("NameContains", "")).lower() in document[name].lower()
        and params.get("CreationTimeAfter", 0.0) <= created <= params.get("CreationTimeBefore", created)
        and params.get("LastModifiedTimeAfter", 0.0) <= modified <= params.get("LastModifiedTimeBefore", modified)
    )


def _encode(rank: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(rank).encode()).decode()


def _decode(token: str) -> list[Any]:
    try:
        return list(json.loads(base64.urlsafe_b64decode(token)))
    except ValueError:
        raise ServiceError("ValidationException", "Invalid NextToken") from None
