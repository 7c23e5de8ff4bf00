"""Two rehearsals that start at the same moment never share a port."""

from __future__ import annotations

import pytest

from rehearsal.listening import listen, listen_if_free


def test_a_port_is_one_sockets_before_anything_serves_it() -> None:
    with listen(0) as first:
        port = first.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            listen(port)
        with listen_if_free(port) as second:
            assert second.getsockname()[1] != port
    with listen_if_free(port) as again:
        assert again.getsockname()[1] == port
