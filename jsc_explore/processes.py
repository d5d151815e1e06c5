"""Processes: start a server, let it end with the process that started it, let it listen and open many files."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress

from jsc_explore.errors import FieldError

# macOS refuses more than the first value that holds, whatever its hard limit says.
_FILE_LIMITS = (65_536, 10_240, 4_096)

# Parameters of glibc's mallopt: when free memory at the end of the heap is returned, from which size on a block is
# mapped by itself and so returned at once, and how many arenas threads share.
_MALLOC_OPTIONS = {-1: 1 << 17, -3: 1 << 17, -8: 2}


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module in another process; it imports nothing from the current directory."""
    return [sys.executable, "-P", "-m", module, *arguments]


def end_with_parent() -> None:
    """Send this process SIGTERM when the process that started it is gone, however that one ended.

    It must have been started with a pipe as its standard input, of which only the starter holds the other end. A byte
    through the pipe (``release``) means that the starter ends on purpose and this process shall go on.
    """

    def wait() -> None:
        if not os.read(0, 1):
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def release(process: subprocess.Popen[bytes]) -> None:
    """Let a process that was started with ``end_with_parent`` go on after this one has ended."""
    if process.stdin is not None:
        with suppress(OSError):  # It has ended already.
            os.write(process.stdin.fileno(), b"\n")


def raise_file_limit() -> int:
    """Raise the number of files that this process may open as far as the system allows; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in _FILE_LIMITS:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft == resource.RLIM_INFINITY or limit <= soft:
            break
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            return limit
    return soft


def listen(address: str, port: int) -> socket.socket:
    """Return a socket that accepts connections; FieldError if the address is not usable or the port is used."""
    if not 0 <= port <= 65_535:
        raise FieldError("port", port, "must be a whole number in [0, 65535]", "try --port 8501")
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family, backlog=128)
    except socket.gaierror as error:
        raise FieldError("address", address, "is no address of this machine", "try localhost or 0.0.0.0") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            rule, remedy = "is used by another program", "end that one, or choose another port with --port"
        elif error.errno == errno.EACCES:
            rule, remedy = "may be used by administrators only", "choose one above 1023 with --port"
        else:
            raise FieldError("address", address, f"cannot be used ({error.strerror})", "try localhost") from error
        raise FieldError("port", port, rule, remedy) from error


def return_freed_memory() -> None:
    """Let this process return large freed blocks to the system at once, where its C library is glibc.

    Otherwise each thread keeps what it freed. Not for training, whose large arrays would be mapped anew in each step.
    """
    with suppress(OSError, AttributeError):
        for option, value in _MALLOC_OPTIONS.items():
            ctypes.CDLL(None).mallopt(option, value)


def collect_garbage() -> None:
    """Free what nothing refers to any more, and return it to the system; takes some tenths of a second."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
