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
    """Yield a file that takes the place of ``path`` when the block ends; if it raises, ``path`` is as it was.

    ``durable`` forces the content and the directory to the disk first. Without ``overwrite`` an existing file raises
    FileExistsError, also one that appears meanwhile. ``locked`` says that the caller alone writes this path: the
    temporary name is then fixed, so that the next writer overwrites what a killed one left. Raises OSError.
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
            # Unlike a rename, a link never takes the place of a file that came in between.
            os.link(partial, path)
        if durable:
            sync_directory(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut. OSError if that fails."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def error_reason(error: BaseException) -> str:
    """Return why the operating system or a library refused, in a few lower-case words."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hex. OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def file_lock(path: Path, *, exclusive: bool, timeout: float = 0.0) -> Iterator[bool]:
    """Hold a lock file, exclusively or shared; yield whether it was acquired within ``timeout`` seconds.

    The system releases it when the process dies, however it dies. OSError if the file cannot be opened.
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
    """Return the metadata of safetensors bytes; ValueError if the bytes are torn or no safetensors."""
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
