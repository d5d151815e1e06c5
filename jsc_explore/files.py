"""Files: atomic writes, file locks, digests, and the header of a safetensors file read without torch."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_RETRY_S = 0.02
_SAFETENSORS_LENGTH = struct.Struct("<Q")


@contextmanager
def atomic_write(
    path: Path, *, durable: bool = True, overwrite: bool = True, locked: bool = False
) -> Iterator[BinaryIO]:
    """Yield a temporary file that replaces ``path`` when the block ends; if the block raises, ``path`` is unchanged.

    ``durable`` syncs file and directory to the disk. Without ``overwrite`` an existing file raises FileExistsError,
    even one created during the block. ``locked`` means that the caller holds a lock for it: the temporary name is
    then fixed, and the next writer overwrites the file that a killed one left. Raises OSError.
    """
    token = "" if locked else f".{secrets.token_hex(4)}"
    partial = path.with_name(f".{path.name}{token}.tmp")
    try:
        with partial.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if overwrite:
            partial.replace(path)
        else:
            # Unlike a rename, a link never replaces a file that was created meanwhile.
            os.link(partial, path)
        if durable:
            sync_directory(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Sync a directory, so that its file names survive a power cut. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def error_reason(error: BaseException) -> str:
    """Return why the operating system or a library refused, in a few lower-case words."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hex. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def file_lock(path: Path, *, exclusive: bool, timeout: float = 0.0) -> Iterator[bool]:
    """Lock a file, exclusively or shared; yield whether that succeeded within ``timeout`` seconds (``inf``: no limit).

    The operating system releases the lock when the process ends, however it ends. Raises OSError.
    """
    deadline = time.monotonic() + timeout
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        while True:
            try:
                fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(_RETRY_S)
                    continue
                yield False
                return
            yield True
            return
    finally:
        os.close(handle)


def safetensors_metadata(data: bytes) -> dict[str, str]:
    """Return the metadata of safetensors bytes. Raises ValueError if they are truncated or not safetensors."""
    if len(data) < _SAFETENSORS_LENGTH.size:
        raise ValueError(f"{len(data)} bytes hold no header")
    begin = _SAFETENSORS_LENGTH.size + _SAFETENSORS_LENGTH.unpack_from(data)[0]
    header = json.loads(data[_SAFETENSORS_LENGTH.size : begin])
    try:
        metadata = header.pop("__metadata__", {})
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        texts = {str(name): str(value) for name, value in metadata.items()}
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"not a safetensors header ({type(error).__name__})") from error
    if len(data) != begin + end:
        raise ValueError(f"{len(data)} bytes where the header says {begin + end}")
    return texts
