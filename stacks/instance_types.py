"""What the templates must know of SageMaker's instance types."""

from __future__ import annotations

import re

_LOCAL_STORAGE = re.compile(
    r"ml\.([a-z]+[0-9]+[a-z]*d[a-z]*|g4dn|g5|g6e?|gr6|p3dn|p4de?|p5e?n?|i[0-9][a-z]*|trn[0-9]n?)\."
)


def has_local_storage(instance_type: str) -> bool:
    """Whether jobs on it use the instance's own disk, encrypted by the hardware: it takes no volume key."""
    return _LOCAL_STORAGE.match(instance_type) is not None
