"""Disk reserve: space on the store's disk that the engine frees when the disk is full, to report that in the queue."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("jsc_explore.engine")
# SQLite's write-ahead log grows to four megabytes and is then overwritten: with this much space the engine can go on
# reporting that the disk is full.
RESERVE_BYTES = 5 << 20


class DiskReserve:
    """A file that occupies disk space until it is released."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._is_held = False

    def acquire(self) -> bool:
        """Occupy the space if twice as much is free; return whether it is occupied, False for a full disk."""
        if self._is_held:
            return True
        try:
            if not self._is_complete():
                if self._free_bytes() < 2 * RESERVE_BYTES:
                    return False
                # Random bytes, since a compressing file system would reserve no space for zeros.
                self.path.write_bytes(os.urandom(RESERVE_BYTES))
            self._is_held = True
        except OSError as error:
            log.warning("%s: %s", self.path.name, error)
            self.release()
        return self._is_held

    def release_if_full(self) -> None:
        """Free the space if the disk has less than that left."""
        with suppress(OSError):  # The directory may be gone.
            if self._free_bytes() < RESERVE_BYTES:
                self.release()

    def release(self) -> None:
        """Free the space."""
        self._is_held = False
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _is_complete(self) -> bool:
        return self.path.exists() and self.path.stat().st_size == RESERVE_BYTES

    def _free_bytes(self) -> int:
        disk = os.statvfs(self.path.parent)
        return disk.f_bavail * disk.f_frsize
