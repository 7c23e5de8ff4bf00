"""S3's events: told on ministack's event loop, one after the other, where it starts a thread for each."""

from __future__ import annotations

import contextvars
from typing import Any

from ministack import app as ministack
from ministack.services import s3

from rehearsal.service import Params


class ObjectEvents:
    """Replaces the thread per event: a thousand objects would be a thousand threads reading rules without a lock."""

    def install(self) -> None:
        s3._fire_s3_event_async = tell


def tell(bucket_name: str, key: str, event_name: str, *positional: Any, **given: Any) -> None:
    """Tell of an object soon, in the request's context; in the order in which the requests were answered."""
    if bucket_name not in s3._bucket_notifications:
        return
    told: Params = {**dict(zip(("size", "etag", "deletion_type"), positional, strict=False)), **given}
    told["sequencer"] = s3._next_event_sequencer(event_name)
    context = contextvars.copy_context()
    ministack._MAIN_LOOP.call_soon_threadsafe(
        lambda: s3._fire_s3_event(bucket_name, key, event_name, **told), context=context
    )
