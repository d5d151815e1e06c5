"""Simulate a sample of any size in blocks, with balanced classes and any number of worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from jsc_explore.data.jets import CLASSES
from jsc_explore.data.simulation.blocks import JETS_PER_BLOCK, Block, ensure_writable, is_complete, write_block
from jsc_explore.data.simulation.detector import find_preset
from jsc_explore.data.simulation.extra import versions
from jsc_explore.errors import DataError, FieldError

_POLL_S = 1.0


def simulate(
    jets: int,
    preset: str,
    seed: int,
    workers: int,
    directory: Path,
    progress: bool = True,
    share: tuple[int, int] = (1, 1),
    without: Collection[Block] = (),
) -> list[Path]:
    """Simulate at least `jets` jets, equally many of each class, and return the files of their blocks.

    Blocks already in `directory` are kept, so that an interrupted simulation continues and a sample can be extended.
    Several processes may work in one directory. With `share` (k, n) only every n-th block is made, starting with the
    k-th: machines without a common directory each make one share, and the files are copied together afterwards. The
    blocks in `without` are not made.

    Raises FieldError for a value out of range, DataError if a library is missing or `directory` cannot be written.
    """
    skipped = set(without)
    blocks = [block for block in plan(jets, preset, seed) if block not in skipped][_offset(share) :: share[1]]
    if not 1 <= workers <= 1024:
        raise FieldError("workers", workers, "must lie in [1, 1024]", f"this machine has {os.cpu_count()} cores")
    versions()  # fails before anything is created if a library is missing
    ensure_writable(directory)
    missing = [block for block in blocks if not is_complete(directory / block.filename, block)]
    total = sum(block.jets for block in blocks)
    done = total - sum(block.jets for block in missing)
    with (
        # smoothing=0: the remaining time uses the mean rate, because a block of gluons takes twice as long as one of Z.
        tqdm(total=total, initial=done, unit="jet", disable=not progress, smoothing=0) as bar,
        _worker_pool(min(workers, len(missing))) as run,
    ):
        while missing:
            held_by_others = []
            for block, made in run(missing, directory):
                if made:
                    bar.update(block.jets)
                else:
                    held_by_others.append(block)
            if len(held_by_others) == len(missing):
                time.sleep(_POLL_S)  # other processes hold all remaining blocks; if one dies, its locks are released
            missing = held_by_others
    return [directory / block.filename for block in blocks]


def plan(jets: int, preset: str, seed: int) -> list[Block]:
    """Return the blocks of a sample, classes in turn; from 5,000 jets on a larger sample starts with a smaller one."""
    find_preset(preset)
    if jets < 1:
        raise FieldError("jets", jets, "must be at least 1", "try 250000")
    if seed < 0:
        raise FieldError("seed", seed, "must not be negative", "try 0")
    per_class = -(-jets // len(CLASSES))
    size = min(per_class, JETS_PER_BLOCK)
    return [Block(preset, label, seed, number, size) for number in range(-(-per_class // size)) for label in CLASSES]


def _offset(share: tuple[int, int]) -> int:
    part, parts = share
    if not 1 <= part <= parts:
        raise FieldError("share", f"{part}/{parts}", "must be k/n with 1 <= k <= n", "try 1/2 here and 2/2 there")
    return part - 1


_Run = Callable[[Sequence[Block], Path], Iterator[tuple[Block, bool]]]


@contextmanager
def _worker_pool(workers: int) -> Iterator[_Run]:
    """Yield a function that writes blocks and reports each; a single worker is this process itself."""
    if workers <= 1:
        yield lambda blocks, directory: ((block, write_block(block, directory)) for block in blocks)
        return
    # spawn, because fork would copy the locks of other threads in this process.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_follow_parent)
    try:
        yield lambda blocks, directory: _in_pool(pool, workers, blocks, directory)
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was killed (out of memory?); run the same command again to continue"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_pool(
    pool: ProcessPoolExecutor, workers: int, blocks: Sequence[Block], directory: Path
) -> Iterator[tuple[Block, bool]]:
    waiting = iter(blocks)
    # At most one block per worker is submitted: if one raises, only the running blocks are awaited.
    running: dict[Future[bool], Block] = {}
    while True:
        for block in waiting:
            running[pool.submit(write_block, block, directory)] = block
            if len(running) >= workers:
                break
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future.result()


def _follow_parent() -> None:
    """Make a worker end immediately on Ctrl-C, and when its parent ends for any reason."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.join,), daemon=True).start()


def _exit_after(wait_for_parent: Callable[[], None]) -> None:
    wait_for_parent()
    os._exit(1)
