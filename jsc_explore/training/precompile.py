"""Make what training compiles before it is needed: the kernel, and the stack's programs for given runs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from jsc_explore.config import RunConfig
from jsc_explore.training.backends.cpu.kernel import kernel
from jsc_explore.training.backends.select import why_not_kernel
from jsc_explore.training.backends.vmap.aot import Build, CompileError, Spec, failed


def prepare(runs: Iterable[RunConfig]) -> Iterator[tuple[str, str, float]]:
    """Yield name, fault ("" if none) and seconds of the kernel, then of each program that a run on a CPU may need.

    A program that failed before is tried again.
    """
    began = time.perf_counter()
    kernel()
    yield "kernel", "", time.perf_counter() - began
    for run in runs:
        if not why_not_kernel(run):
            continue
        began, fault = time.perf_counter(), ""
        spec = Spec.of(run, "cpu")
        try:
            failed(spec).unlink(missing_ok=True)
            Build.begin(spec).program()
        except CompileError as error:
            fault = str(error)
        name = f"{run.model}, batch {run.batch_size}, {run.optimizer}, {run.precision}"
        yield name, fault, time.perf_counter() - began
