"""The process that fits surrogate models: results and errors come back, it ends when idle and starts again."""

import math
import os
import signal
import subprocess
import sys

import psutil
import pytest

from jsc_explore.analysis.fit_process import FitProcess
from tests.servers import ROOT, eventually


@pytest.fixture
def fits():
    process = FitProcess()
    yield process
    process.close()


def test_results_and_errors_come_back(fits):
    assert fits.call(math.hypot, 3.0, 4.0) == 5.0
    with pytest.raises(ValueError, match=r"math domain error|expected a nonnegative"):
        fits.call(math.sqrt, -1.0)
    assert fits.call(int, "11", base=2) == 3
    assert fits.call(os.getpid) != os.getpid()


def test_what_a_fit_prints_does_not_mix_with_the_answers(fits):
    assert fits.call(print, "noise") is None
    assert fits.call(math.hypot, 3.0, 4.0) == 5.0


def test_a_large_request_and_a_large_answer_arrive_whole(fits):
    assert fits.call(bytes.upper, b"a" * 5_000_000) == b"A" * 5_000_000


def test_an_idle_process_ends_leaves_nothing_and_starts_again_at_the_next_call():
    fits = FitProcess(idle_timeout_s=0.1)
    first = fits.call(os.getpid)
    eventually(lambda: not psutil.pid_exists(first))
    assert fits.call(os.getpid) != first
    fits.close()


def test_a_killed_process_is_started_again_and_one_that_dies_twice_is_an_error(fits):
    first = fits.call(os.getpid)
    os.kill(first, signal.SIGKILL)
    assert fits.call(os.getpid) != first
    with pytest.raises(RuntimeError, match="_exit ended twice"):
        fits.call(os._exit, 3)
    assert fits.call(math.hypot, 3.0, 4.0) == 5.0


def test_it_ends_when_the_process_that_started_it_is_killed():
    code = (
        "import os, time; from jsc_explore.analysis.fit_process import FitProcess; fits = FitProcess();"
        "print(fits.call(os.getpid), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT, text=True) as owner:
        child = int(owner.stdout.readline())
        assert psutil.pid_exists(child)
        owner.kill()
    eventually(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
