"""Checkpoint files: the latest checkpoint of each active run, in the store's directory; only the engine writes them."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Collection
from pathlib import Path

from jsc_explore.errors import StoreError
from jsc_explore.files import atomic_write, error_reason, safetensors_metadata
from jsc_explore.store.directory import RUN_ID, StoreDirectory, open_directory

log = logging.getLogger("jsc_explore.engine")
# The files that this module makes, complete or half written.
_OWN_NAME = re.compile(rf"{RUN_ID.pattern}\.safetensors|\.{RUN_ID.pattern}\.safetensors\.tmp")
# Seconds between two attempts to write to a full disk.
_RETRY_S = 1.0


class Checkpoints:
    """Writes checkpoints in a thread of its own, since a disk's sync must not delay the engine.

    They are in the folder ``checkpoints`` of a store, and are written atomically. A checkpoint that cannot be written
    stays readable in memory; ``problem`` then says why in one line, else it is empty.
    """

    def __init__(self, directory: Path | StoreDirectory) -> None:
        self._home = open_directory(directory)
        self.directory = self._home.path / "checkpoints"
        self.problem = ""
        self._epochs: dict[str, int] = {}
        self._waiting: dict[str, bytes] = {}
        self._lock = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._write_all, name="checkpoints", daemon=True)
        self._thread.start()

    def recover(self, wanted: Collection[str]) -> None:
        """Load the checkpoints that an earlier engine left for these runs; delete those of other runs.

        Files that are not named as checkpoints are left alone.
        """
        for path in [path for path in self._home.folder("checkpoints").glob("*") if _OWN_NAME.fullmatch(path.name)]:
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
        """Replace a run's checkpoint; it is written to disk in the background. Raises StoreError for an invalid id."""
        if not RUN_ID.fullmatch(run_id):
            raise StoreError(f"store {self._home.path}: {run_id[:80]!r} is not the id of a run; it gets no checkpoint")
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
            self._home.make_folder("checkpoints")
            with atomic_write(path, locked=True) as file:
                file.write(data)
        except OSError as error:
            return f"store {self._home.path}: checkpoints cannot be written ({error_reason(error)}); make room"
        except StoreError as error:
            return str(error)
        return ""
