"""Read the runs below a directory of TensorBoard event files, with the hparams.yaml beside them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jsc_explore.errors import FieldError
from jsc_explore.files import error_reason
from jsc_explore.importers.checked_series import EPOCH, checked_curve
from jsc_explore.importers.event_file import Events, read_events
from jsc_explore.importers.hparams import read_hparams
from jsc_explore.importers.imported_run import ImportedRun, hyperparameters
from jsc_explore.importers.names import listed, quantity_of

MAX_RUNS = 500
HPARAMS = "hparams.yaml"
_FILE_MARK = "tfevents"
# A folder that add_hparams makes is small; a larger one is a run.
_MAX_HPARAMS_KB = 200


@dataclass
class RunFiles:
    """The event files of one run in the order they were written, and those that only give its hyperparameters."""

    files: list[Path]
    hparams: list[Path] = field(default_factory=list)


def find_runs(directory: Path) -> tuple[dict[str, RunFiles], list[str]]:
    """Return run name -> event files below a directory, and notes; a name is the folder's path below ``directory``.

    Symbolic links are not followed. A folder that the HParams plugin made inside a run's folder belongs to that run.
    Raises FieldError if there are no event files or more than 500 runs.
    """
    if not directory.is_dir():
        raise FieldError("directory", str(directory), "is not a directory", "give the one that holds lightning_logs")
    found: dict[Path, list[Path]] = {}
    links: list[str] = []
    notes: list[str] = []
    top = directory.resolve()

    def unreadable(error: OSError) -> None:
        name = Path(error.filename or "").name
        notes.append(f"{name} cannot be read ({error_reason(error)}): it is left out")

    for folder, folders, names in os.walk(top, onerror=unreadable):
        folders.sort()
        here = Path(folder)
        linked = [name for name in [*folders, *names] if (here / name).is_symlink()]
        links += [(here / name).relative_to(top).as_posix() for name in linked]
        files = [here / name for name in names if _FILE_MARK in name and name not in linked]
        if files:
            found[here] = sorted(files, key=_written)
        if len(found) > 2 * MAX_RUNS:
            break
    notes += [f"links are not followed: {listed(links)}"] if links else []
    if not found:
        rule = "; ".join(["contains no event file (events.out.tfevents.*)", *notes])
        raise FieldError("directory", str(directory), rule, "give the one that holds lightning_logs")
    runs: dict[Path, RunFiles] = {}
    for here, files in sorted(found.items()):
        if here.parent in runs and _only_hparams(files):
            runs[here.parent].hparams += files
        else:
            runs[here] = RunFiles(files)
    if len(runs) > MAX_RUNS:
        remedy = "give one of its subdirectories"
        raise FieldError("directory", str(directory), f"has more than {MAX_RUNS} runs", remedy)
    return {here.relative_to(top).as_posix() if here != top else top.name: run for here, run in runs.items()}, notes


def read_run(name: str, run: RunFiles, mapping: Mapping[str, str] | None = None) -> ImportedRun:
    """Read the event files of one run and the hyperparameters beside them; ``mapping`` names quantities by tag.

    Raises FieldError if a file is too large or cannot be read, if no tag is a quantity of a curve, or if a value is
    impossible.
    """
    digest = hashlib.sha256()
    events = Events()
    notes = [note for path in run.files if (note := read_events(path, events, digest))]
    found, more = _hyperparameters(run, events, digest)
    notes += more
    if events.not_scalar:
        notes.append(f"not scalars, and not read: {listed(events.not_scalar)}")
    mapping = mapping or {}
    if mapping:
        # Read by other names it is another run.
        digest.update(repr(sorted(mapping.items())).encode())
    if not any(tag in mapping or ((known := quantity_of(tag)) and not known[0].startswith("test_"))
               for tag in events.series):  # fmt: skip
        tags = listed(tag for tag in events.series if tag != EPOCH) or "none"
        rule = "; ".join([f"has no tag that a curve can show (its tags: {tags})", *notes])
        raise FieldError("run", name, rule, "name one: --map TAG=QUANTITY, see docs/importing.md")
    fields, other, more = hyperparameters(found)
    curve = checked_curve(name, events.series, mapping=mapping, batch_size=fields.get("batch_size"),
                          restarts=events.restarts)  # fmt: skip
    return ImportedRun(
        name, "tensorboard", run.files[0].name, digest.hexdigest(), fields, other, curve.points, curve.test_acc,
        curve.test_loss, [*notes, *more, *curve.notes],
    )  # fmt: skip


def _hyperparameters(run: RunFiles, events: Events, digest: object) -> tuple[dict[str, object], list[str]]:
    """Return the hyperparameters of hparams.yaml and of the HParams plugin, and notes."""
    found: dict[str, object] = {}
    notes: list[str] = []
    path = run.files[0].parent / HPARAMS
    if path.is_symlink():
        notes.append(f"{HPARAMS} is a link and is not read")
    elif path.is_file():
        found, note = read_hparams(path, digest)
        notes += [note] if note else []
    plugin: dict[str, list[object]] = {name: [value] for name, value in events.hparams.items()}
    for file in run.hparams:
        own = Events()
        notes += [note for note in [read_events(file, own, digest)] if note]
        for name, value in own.hparams.items():
            plugin.setdefault(name, []).append(value)
        if own.series:
            notes.append(f"folder {file.parent.name} gives hyperparameters; not read there: {listed(own.series)}")
    for name, values in plugin.items():
        if any(value != values[0] for value in values):
            notes.append(f"{name} is left out, because it is ambiguous: {listed({str(value) for value in values})}")
        else:
            found.setdefault(name, values[0])
    return found, notes


def _only_hparams(files: list[Path]) -> bool:
    """Return whether a folder holds hyperparameters of the HParams plugin and no curve: at most one value a tag."""
    try:
        if sum(path.stat().st_size for path in files) > _MAX_HPARAMS_KB * 1000:
            return False
        events = Events()
        for path in files:
            read_events(path, events, hashlib.sha256())
    except (FieldError, OSError):
        return False
    return bool(events.hparams) and all(len(values) == 1 for values in events.series.values())


def _written(path: Path) -> tuple[int, list[tuple[int, str]]]:
    """Return the order in which event files of one folder were written: by the second in their names."""
    seconds = re.search(r"tfevents\.(\d{1,18})", path.name)
    parts = [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d{1,18})", path.name)]
    return int(seconds[1]) if seconds else 0, parts
