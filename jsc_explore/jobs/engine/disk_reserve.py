"""Room on the store's disk that is kept for the day it is full: what is wrong must then still be written down."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("jsc_explore.engine")
# SQLite's write-ahead log grows to four megabytes, then it begins again in its own place: with this much the engine can
# go on saying that the disk is full for as long as it is.
RESERVE_BYTES = 5 << 20


class DiskReserve:
    """A file that takes up room nobody may use until it is given up."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._held = False

    def hold(self) -> bool:
        """Have the room, or take it again where there is twice as much; False if the disk is full."""
        if self._held:
            return True
        try:
            if not self._is_whole():
                if self._free() < 2 * RESERVE_BYTES:
                    return False
                # Noise: a file system that compresses would keep no room for zeros.
                self.path.write_bytes(os.urandom(RESERVE_BYTES))
            self._held = True
        except OSError as error:
            log.warning("%s: %s", self.path.name, error)
            self.give_up()
        return self._held

    def give_up_if_full(self) -> None:
        """Free the room if there is hardly any other."""
        if self._free() < RESERVE_BYTES:
            self.give_up()

    def give_up(self) -> None:
        """Free the room."""
        self._held = False
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _is_whole(self) -> bool:
        return self.path.exists() and self.path.stat().st_size == RESERVE_BYTES

    def _free(self) -> int:
        disk = os.statvfs(self.path.parent)
        return disk.f_bavail * disk.f_frsize
