"""The directory of a store: its marker, and the names of the files that the store makes in it.

Only a directory with a marker is a store. Whatever is not named as the store names its files is left alone.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from jsc_explore.errors import StoreError, StoreGoneError
from jsc_explore.files import atomic_write, error_reason

MARKER = "jsc-explore-store.json"
# The environment variable with the id of the store that ``app`` serves.
STORE_ID = "JSC_EXPLORE_STORE_ID"
FORMAT, VERSION = "jsc-explore store", 1
FOLDERS = ("parts", "conflicts", "quarantine", "imported", "checkpoints")
_ID = "[0-9a-f]{32}"
RUN_ID = re.compile(_ID)
PART_NAME = re.compile(rf"{_ID}\.parquet")
UNFINISHED_PART_NAME = re.compile(rf"\.{_ID}\.parquet\.[0-9a-f]{{8}}\.tmp")
_UNFINISHED_MARKER_NAME = re.compile(rf"\.{re.escape(MARKER)}\.[0-9a-f]{{8}}\.tmp")
# A marker has about a hundred bytes.
_MAX_MARKER_BYTES = 4096


@dataclass(frozen=True)
class StoreDirectory:
    """An opened store directory: its path, and its marker's id, which is empty in an empty directory without one."""

    path: Path
    id: str
    marker_state: tuple[int, ...] = field(default=(), compare=False, repr=False)

    def check(self) -> None:
        """Raise StoreGoneError if the path is no longer this store: it was renamed, removed or replaced."""
        # The marker is read only if it is another file, which also means that no descriptor is needed.
        is_same_file = self.marker_state and _marker_state(self.path) == self.marker_state
        if self.id and not is_same_file and _read_id(self.path) != self.id:
            raise StoreGoneError(
                f"store {self.path}: is gone (its directory was renamed, removed or replaced while it was in use); "
                "put it back, or start again with its new path"
            )

    def make_folder(self, name: str) -> Path:
        """Make a folder of the store unless it exists; return it.

        Raises StoreGoneError if the store is gone, StoreError if the folder is a link, and OSError.
        """
        self.check()
        folder = self.path / name
        # Without parents: a store that is removed just now is not made again.
        folder.mkdir(exist_ok=True)
        return self.folder(name)

    def folder(self, name: str) -> Path:
        """Return the path of a folder of the store. Raises StoreError if it is a link."""
        folder = self.path / name
        if folder.is_symlink():
            raise _link_error(self.path, folder)
        return folder


def open_directory(directory: Path | StoreDirectory, *, create: bool = True, expected_id: str = "") -> StoreDirectory:
    """Open a store's directory, or make one where nothing or an empty directory is, and return it.

    Processes may do so at the same time: one makes the marker, all read it. Raises StoreError, with nothing changed,
    for a directory that holds other files, an invalid marker, or a symbolic link among the store's files; without
    ``create`` also if there is no directory. With an ``expected_id`` StoreGoneError if the marker has another id.
    """
    if isinstance(directory, StoreDirectory):
        directory.check()
        return directory
    path = Path(directory)
    try:
        if create and not expected_id:
            path.mkdir(parents=True, exist_ok=True)
        if not (names := _names(path)):
            if create and not expected_id:
                # Where it is not permitted to write one, the empty store can still be read.
                _write_marker(path)
        elif MARKER not in names:
            raise StoreError(
                f"store {path}: is not empty and is not a store (it has no {MARKER}); "
                "choose a new or an empty directory with --store"
            )
        _refuse_links(path)
    except FileNotFoundError as error:
        if not expected_id:
            raise StoreError(f"store {path}: the directory does not exist; check the path") from error
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(f"store {path}: is a file, not a directory; choose another with --store") from error
    except OSError as error:
        raise StoreError(
            f"store {path}: cannot be opened ({error_reason(error)}); choose another with --store"
        ) from error
    state = _marker_state(path)
    found = _read_id(path)
    opened = StoreDirectory(path, expected_id or found, state if found == (expected_id or found) else ())
    opened.check()
    return opened


def part_name(name: object, directory: Path) -> str:
    """Return the name of a part as a catalogue gives it. Raises StoreError unless it is one that the store makes."""
    if not isinstance(name, str) or not PART_NAME.fullmatch(name):
        raise StoreError(
            f"store {directory}: its catalogue names the file {str(name)[:80]!r}, which is not the name of a part; "
            "run `jsc-explore verify --repair`"
        )
    return name


def _names(path: Path) -> set[str]:
    """Return the names in a directory, without those of markers that are being written."""
    return {file.name for file in path.iterdir() if not _UNFINISHED_MARKER_NAME.fullmatch(file.name)}


def _marker_state(path: Path) -> tuple[int, ...]:
    """Return what changes when the marker is replaced, though an inode may be given again; empty if there is none."""
    try:
        found = (path / MARKER).stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _write_marker(path: Path) -> None:
    content = {"format": FORMAT, "version": VERSION, "id": secrets.token_hex(16)}
    try:
        # Linked into its place complete: of several processes one succeeds, and none reads half a marker.
        with suppress(FileExistsError), atomic_write(path / MARKER, overwrite=False) as file:
            file.write(json.dumps(content).encode())
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise


def _read_id(path: Path) -> str:
    """Return the id in a directory's marker; empty if there is none. Raises StoreError for an invalid marker."""
    try:
        with (path / MARKER).open("rb") as file:
            content = json.loads(file.read(_MAX_MARKER_BYTES))
        if content["format"] != FORMAT or not re.fullmatch(_ID, content["id"]):
            raise ValueError("format or id are wrong")
        version = int(content["version"])
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise StoreError(f"store {path}: its {MARKER} cannot be read ({error_reason(error)}); try again") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(
            f"store {path}: its {MARKER} is invalid ({error_reason(error)[:80]}); restore that file from a copy, "
            "or merge the files in parts/ into a new store"
        ) from error
    if version != VERSION:
        raise StoreError(
            f"store {path}: its {MARKER} has version {version}, this program reads only version {VERSION}; "
            "use the jsc-explore that wrote it, or another directory with --store"
        )
    return str(content["id"])


def _refuse_links(path: Path) -> None:
    """Raise StoreError if the directory or a folder of the store contains a symbolic link."""
    for folder in (path, *(path / name for name in FOLDERS)):
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise _link_error(path, Path(entry.path))


def _link_error(directory: Path, link: Path) -> StoreError:
    return StoreError(
        f"store {directory}: {link.relative_to(directory)} is a symbolic link, and all files of a store must lie "
        "inside its directory; move what it points to there, or remove the link"
    )
