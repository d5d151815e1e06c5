"""Fits of surrogate models in a process of their own, which ends when nothing is fitted for a while.

scikit-learn, scipy and their work take 100 MB, and a fit would hold the interpreter that draws pages.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, ParamSpec, TypeVar, cast

from jsc_explore.processes import module_command

P = ParamSpec("P")
T = TypeVar("T")

# Longer than between two clicks on Overview.
IDLE_TIMEOUT_S = 60.0


class FitProcess:
    """Calls functions of modules in another process, one at a time, and returns or raises what they do."""

    def __init__(self, idle_timeout_s: float = IDLE_TIMEOUT_S) -> None:
        self._idle_timeout_s = idle_timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Return ``function(*arguments, **options)``; RuntimeError if the process dies twice over it."""
        request = pickle.dumps((function, arguments, options))
        with self._lock:
            for _ in range(2):
                try:
                    succeeded, result = self._exchange(request)
                except (OSError, EOFError, pickle.UnpicklingError):  # It has ended, perhaps because it was idle.
                    self._end()
                    continue
                if succeeded:
                    return cast(T, result)
                raise result
        raise RuntimeError(
            f"the process that computes {function.__name__} ended twice: the log tells why, e.g. too little memory"
        )

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def _exchange(self, request: bytes) -> tuple[bool, Any]:
        if self._process is None:
            command = module_command(__name__, str(self._idle_timeout_s))
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            # An idle process that has ended would stay in the system's table until somebody asks for its status.
            threading.Thread(target=self._process.wait, name="fits", daemon=True).start()
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        requests.write(request)
        requests.flush()
        return pickle.load(answers)  # type: ignore[no-any-return]

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def main() -> None:
    """Answer requests on standard input until it ends, or none comes for the seconds of the first argument."""
    # Ctrl-C reaches the whole process group; the page ends this process by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What a library prints must not mix with the answers.
    # Nothing is left in the buffer when it waits: the page sends the next request after the answer.
    while select.select([requests], [], [], float(sys.argv[1]))[0]:
        try:
            _answer(requests, answers)
        except (EOFError, BrokenPipeError):
            os._exit(0)  # The page has ended, however it ended.


def _answer(requests: BinaryIO, answers: BinaryIO) -> None:
    function, arguments, options = pickle.load(requests)
    try:
        answer = pickle.dumps((True, function(*arguments, **options)))
    except Exception as error:  # It is raised where the call was made.
        answer = pickle.dumps((False, error))
    answers.write(answer)
    answers.flush()


if __name__ == "__main__":
    main()
