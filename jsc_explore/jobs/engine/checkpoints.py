"""Checkpoint files: the latest checkpoint of each active run, in the store's directory; only the engine writes them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from pathlib import Path

from jsc_explore.files import atomic_write, error_reason, safetensors_metadata

log = logging.getLogger("jsc_explore.engine")
# Seconds between two attempts to write to a full disk.
_RETRY_S = 1.0


class Checkpoints:
    """Writes checkpoints in a thread of its own, since a disk's sync must not delay the engine.

    Files are written atomically. A checkpoint that cannot be written stays readable in memory; ``problem`` then says
    why in one line, else it is empty.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.problem = ""
        self._epochs: dict[str, int] = {}
        self._waiting: dict[str, bytes] = {}
        self._lock = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._write_all, name="checkpoints", daemon=True)
        self._thread.start()

    def recover(self, wanted: Collection[str]) -> None:
        """Load the checkpoints that an earlier engine left for these runs; delete all other files."""
        for path in self.directory.glob("*"):
            if path.suffix == ".safetensors" and path.stem in wanted:
                try:
                    self._epochs[path.stem] = int(safetensors_metadata(path.read_bytes())["epoch"])
                    continue
                except (OSError, ValueError, KeyError, TypeError) as error:
                    log.warning("checkpoint of %s cannot be read (%s); training restarts", path.stem[:12], error)
            path.unlink(missing_ok=True)

    def epoch(self, run_id: str) -> int:
        """Return the finished epochs of a run's checkpoint; 0 without a checkpoint."""
        return self._epochs.get(run_id, 0)

    def read(self, run_id: str) -> bytes | None:
        """Return a run's checkpoint, None if there is none."""
        with self._lock:
            if run_id in self._waiting:
                return self._waiting[run_id]
        if run_id not in self._epochs:
            return None
        try:
            return self._path(run_id).read_bytes()
        except OSError as error:
            log.warning("checkpoint of %s cannot be read (%s); training restarts", run_id[:12], error)
            return None

    def save(self, run_id: str, data: bytes) -> None:
        """Replace a run's checkpoint; it is written to disk in the background."""
        epoch = int(safetensors_metadata(data)["epoch"])
        with self._lock:
            self._epochs[run_id], self._waiting[run_id] = epoch, data
            self._lock.notify()

    def drop(self, run_id: str) -> None:
        """Delete the checkpoint of a run that has ended."""
        with self._lock:
            self._waiting.pop(run_id, None)
            if self._epochs.pop(run_id, None) is not None:
                self._path(run_id).unlink(missing_ok=True)

    def close(self) -> None:
        """Write the waiting checkpoints, unless the disk is full, and stop the thread."""
        with self._lock:
            self._closed = True
            self._lock.notify()
        self._thread.join()

    def _path(self, run_id: str) -> Path:
        return self.directory / f"{run_id}.safetensors"

    def _write_all(self) -> None:
        while True:
            with self._lock:
                while not self._waiting and not self._closed:
                    self._lock.wait()
                if not self._waiting:
                    return
                run_id, data = next(iter(self._waiting.items()))
                # Under the lock, so that ``drop`` cannot come in between and leave the file of an ended run.
                self.problem = self._write(run_id, data)
                if not self.problem:
                    del self._waiting[run_id]
                elif self._closed:
                    return
                else:
                    self._lock.wait(_RETRY_S)

    def _write(self, run_id: str, data: bytes) -> str:
        path = self._path(run_id)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, locked=True) as file:
                file.write(data)
        except OSError as error:
            return f"store {path.parent.parent}: checkpoints cannot be written ({error_reason(error)}); make room"
        return ""
