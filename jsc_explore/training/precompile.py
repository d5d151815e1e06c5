"""Compile ahead of time what training needs: the kernel, and the vmap backend's programs for given runs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from jsc_explore.config import RunConfig
from jsc_explore.training.backends.cpu.kernel import load_kernel
from jsc_explore.training.backends.select import why_not_kernel
from jsc_explore.training.backends.vmap.aot import Build, CompileError
from jsc_explore.training.backends.vmap.program import ProgramSpec, failure_marker


def precompile(runs: Iterable[RunConfig]) -> Iterator[tuple[str, str, float]]:
    """Compile the kernel, then the program of each run that may need one on a CPU; yield name, error, seconds.

    The error is "" where there is none. A program that failed to compile before is tried again.
    """
    start = time.perf_counter()
    load_kernel()
    yield "kernel", "", time.perf_counter() - start
    for run in runs:
        if not why_not_kernel(run):
            continue
        start, error_text = time.perf_counter(), ""
        spec = ProgramSpec.of(run, "cpu")
        try:
            failure_marker(spec).unlink(missing_ok=True)
            Build.start(spec).load()
        except CompileError as error:
            error_text = str(error)
        name = f"{run.model}, batch {run.batch_size}, {run.optimizer}, {run.precision}"
        yield name, error_text, time.perf_counter() - start
