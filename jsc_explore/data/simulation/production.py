"""Simulate a sample of any size: blocks in an order that keeps classes balanced, on any number of cores."""

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

    Blocks already in `directory` are kept: an interrupted simulation goes on, a smaller sample is extended,
    several processes may work on one directory. With `share` (k, n) only every n-th block is made, beginning
    with the k-th: machines without a common directory take a share each and copy their files together.
    The blocks in `without` are not made.

    Raises FieldError for a value out of range, DataError if a library is missing or
    `directory` takes no files.
    """
    skipped = set(without)
    blocks = [block for block in plan(jets, preset, seed) if block not in skipped][_offset(share) :: share[1]]
    if not 1 <= workers <= 1024:
        raise FieldError("workers", workers, "must lie in [1, 1024]", f"this machine has {os.cpu_count()} cores")
    versions()  # A missing library is said before anything is created.
    ensure_writable(directory)
    missing = [block for block in blocks if not is_complete(directory / block.filename, block)]
    total = sum(block.jets for block in blocks)
    done = total - sum(block.jets for block in missing)
    with (
        # smoothing=0: the time left follows the mean rate; a block of gluons takes twice as long as one of Z.
        tqdm(total=total, initial=done, unit="jet", disable=not progress, smoothing=0) as bar,
        _worker_pool(min(workers, len(missing))) as run,
    ):
        while missing:
            elsewhere = []
            for block, made in run(missing, directory):
                if made:
                    bar.update(block.jets)
                else:
                    elsewhere.append(block)
            if len(elsewhere) == len(missing):
                time.sleep(_POLL_S)  # Another process holds all that is left; should it die, its claims fall free.
            missing = elsewhere
    return [directory / block.filename for block in blocks]


def plan(jets: int, preset: str, seed: int) -> list[Block]:
    """List a sample's blocks, classes in turn; from 5,000 jets on, a larger sample begins with a smaller."""
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
    """Yield a function that produces blocks, reporting each; one worker needs no second process."""
    if workers <= 1:
        yield lambda blocks, directory: ((block, write_block(block, directory)) for block in blocks)
        return
    # spawn: a fork would copy whatever threads and locks the calling process has.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_follow_parent)
    try:
        yield lambda blocks, directory: _in_pool(pool, workers, blocks, directory)
    except BrokenProcessPool as error:
        raise DataError("a worker process was killed (out of memory?); the same command goes on from here") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_pool(
    pool: ProcessPoolExecutor, workers: int, blocks: Sequence[Block], directory: Path
) -> Iterator[tuple[Block, bool]]:
    waiting = iter(blocks)
    # Only as many in flight as there are workers: when one raises, only the others' blocks are waited for.
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
    """Make a worker end at once with Ctrl-C, and with its parent however that one dies."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.join,), daemon=True).start()


def _exit_after(end: Callable[[], None]) -> None:
    end()
    os._exit(1)
