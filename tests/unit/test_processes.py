"""Processes: they end with the process that started them, listen on a free port, and may open many files."""

import resource
import socket
import subprocess
import sys

import pytest

from jsc_explore import processes
from jsc_explore.errors import FieldError

# Waits for a line that never comes, unless its starter is gone.
CHILD = """
import signal, sys, time
from jsc_explore.processes import end_with_parent
end_with_parent()
print("started", flush=True)
time.sleep(60)
"""


@pytest.fixture
def child():
    process = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"started\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_process_ends_when_the_one_that_started_it_is_gone(child):
    # However a process ends, the system closes its end of the pipe.
    child.stdin.close()
    assert child.wait(timeout=30) == -15


def test_a_released_process_goes_on(child):
    processes.release(child)
    child.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(timeout=0.3)


def test_releasing_a_process_that_has_ended_is_no_error(child):
    child.kill()
    child.wait()
    processes.release(child)


def test_a_module_command_imports_nothing_from_the_current_directory(tmp_path):
    (tmp_path / "json.py").write_text("print('foreign code')")
    shown = subprocess.run(
        processes.module_command("json.tool"), cwd=tmp_path, input=b"{}", capture_output=True, check=True
    )  # fmt: skip
    assert shown.stdout.split() == [b"{}"]


def test_a_used_port_is_named_with_what_to_do():
    with processes.listen("localhost", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(FieldError, match=rf"port.*{port}.*another program.*--port"):
            processes.listen("localhost", port)


def test_a_listening_socket_accepts_connections():
    with processes.listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        listening.accept()[0].close()


@pytest.mark.parametrize("address", ["no.such.host.invalid", "192.0.2.1"])
def test_an_unusable_address_is_named(address):
    with pytest.raises(FieldError, match=rf"address.*{address}"):
        processes.listen(address, 0)


def test_a_port_out_of_range_is_named():
    with pytest.raises(FieldError, match="65535"):
        processes.listen("localhost", 70_000)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [((256, 1024), 1024), ((1024, resource.RLIM_INFINITY), 65_536), ((100_000, 200_000), 100_000), ((256, 256), 256)],
)
def test_the_limit_of_open_files_is_raised_as_far_as_allowed(monkeypatch, limits, expected):
    raised = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: raised.append(new))
    assert processes.raise_file_limit() == expected
    assert raised == ([] if expected == limits[0] else [(expected, limits[1])])


def test_a_limit_that_the_system_refuses_is_tried_lower(monkeypatch):
    def refuse(_, new):
        if new[0] > 10_240:
            raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert processes.raise_file_limit() == 10_240


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_large_freed_blocks_are_returned_to_the_system():
    code = """
import sys
from jsc_explore import processes
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
if sys.argv[1] == "returned":
    processes.return_freed_memory()
# Without the setting, glibc raises its threshold at the first large block that is freed, and keeps the next ones.
for _ in range(2):
    blocks = [bytearray(3 << 20) for _ in range(20)]
    last = bytearray(1 << 20)
    del blocks
print(resident() >> 20)
"""
    kept, returned = (
        int(subprocess.run([sys.executable, "-c", code, how], capture_output=True, check=True).stdout)
        for how in ("kept", "returned")
    )
    assert returned < kept - 20
