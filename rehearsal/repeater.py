"""The thread behind what looks at something, or sends something, again and again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger("rehearsal")


class Repeater(threading.Thread):
    """Does `work` again and again until it is stopped, each time after a pause of `pause()` seconds; what it raises is
    logged, and the next round comes all the same."""

    def __init__(self, name: str, work: Callable[[], None], pause: Callable[[], float]) -> None:
        super().__init__(name=name, daemon=True)
        self._work, self._pause = work, pause
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.wait(self._pause()):
            try:
                self._work()
            except Exception:
                if not self.stopping.is_set():
                    log.exception("a round of %s failed", self.name)

    def stop(self) -> None:
        self.stopping.set()
        if self.is_alive():
            self.join(10)
