"""The page's server as a process: what it leaves when it ends, and what it says when it cannot start."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
from servers import ROOT, eventually, running_app

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_after_the_end_of_the_app_whatever_ended_it(tmp_path, number):
    with running_app(tmp_path / "store") as app:
        server = psutil.Process(app.process.pid)
        # Engine, fork server, resource tracker.
        eventually(lambda: len(server.children(recursive=True)) >= 3)
        started = server.children(recursive=True)
        os.kill(app.process.pid, number)
        app.process.wait(timeout=60)
        _, left = psutil.wait_procs(started, timeout=60)
        assert left == []
        (line,) = app.log.read_text().splitlines()
        assert app.url in line


def test_a_second_app_on_a_port_is_refused_in_one_line_and_starts_nothing(tmp_path):
    with running_app(tmp_path / "store", "--read-only") as app:
        port = app.url.rpartition(":")[2]
        second = subprocess.run(
            [sys.executable, "-m", "jsc_explore", "app", "--headless", "--port", port, "--store", str(tmp_path / "b")],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert app.responds()
    assert second.returncode == 2
    (line,) = second.stderr.splitlines()
    assert f"port = {port}: is used by another program" in line
    assert "--port" in line
    assert not (tmp_path / "b" / "engine.log").exists()
