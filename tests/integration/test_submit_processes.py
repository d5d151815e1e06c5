"""Several processes that submit the same runs at once make one request each."""

import subprocess
import sys

SUBMIT_MANY = """
import sys
from jsc_explore.config import RunConfig
from jsc_explore.jobs.queue import Queue
sys.stdin.read()  # wait for the others
new = Queue({directory!r}).request({{f"run-{{i}}": ("c", RunConfig(seed=i)) for i in range(40)}})
print(*new, sep="\\n")
"""


def test_eight_processes_that_submit_the_same_runs_at_once_make_one_request_each(tmp_path):
    command = [sys.executable, "-c", SUBMIT_MANY.format(directory=str(tmp_path))]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(8)]
    for process in processes:
        process.stdin.close()
    new = []
    for process in processes:
        new += process.stdout.read().decode().split()
        process.stdout.close()
        assert process.wait() == 0
    assert sorted(new) == sorted(f"run-{i}" for i in range(40))
