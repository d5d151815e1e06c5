"""The Dask cluster an engine trains on: one worker process a core, and one kept free for those who wait at a screen."""

from __future__ import annotations

import logging
import os
import traceback
from asyncio import CancelledError
from collections.abc import Callable
from typing import Any

from jsc_explore.errors import JscError
from jsc_explore.jobs import worker

# Bulk work gives way to the app and to interactive training on the same cores.
KEPT_FREE = "interactive"
BULK_NICENESS, INTERACTIVE_NICENESS = 10, 2
JOIN_TIMEOUT = "20s"
_DASK = {
    # Events are passed on as they come; Dask's own log of them would only grow.
    "distributed.admin.low-level-log-length": 10,
    "distributed.scheduler.allowed-failures": 3,
    # An engine with nothing to do took 5% of a core, nearly all of it Dask looking at itself.
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
}


class Cluster:
    """Workers for stacks: ``bulk_slots`` for anything, with ``keep_free`` one more for interactive requests alone.

    ``scheduler`` is the address of a running Dask scheduler; without it a local cluster is started. A scheduler's
    ``bulk_slots`` are the threads of its workers, unless ``workers`` says otherwise.
    """

    def __init__(self, workers: int | None = None, scheduler: str | None = None, keep_free: bool = True) -> None:
        self.workers = workers
        self.bulk_slots = workers or os.cpu_count() or 1
        self.scheduler = scheduler
        self.keep_free = keep_free and scheduler is None
        self._local: Any = None
        self._client: Any = None
        self._on_kept_free: Any = None

    @property
    def slots(self) -> int:
        """Stacks that may run at once."""
        return self.bulk_slots + self.keep_free

    def start(self, on_event: Callable[[dict[str, Any]], None]) -> None:
        """Start or join the cluster; events of the workers go to ``on_event``, from another thread."""
        import dask
        from distributed import Client, Nanny, Scheduler, SpecCluster

        dask.config.set(_DASK)
        logging.getLogger("distributed").setLevel(logging.ERROR)
        if self.scheduler is None:
            # By default workers listen on every interface, and whoever reaches them can run code.
            here = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
            options = {**here, "nthreads": 1, "memory_limit": 0, "silence_logs": logging.ERROR}
            bulk = {"cls": Nanny, "options": {**options, "resources": {"slot": 1, "bulk": 1}}}
            kept_free = {"cls": Nanny, "options": {**options, "resources": {"slot": 1}}}
            workers = {f"bulk-{i}": bulk for i in range(self.bulk_slots)}
            if self.keep_free:
                workers[KEPT_FREE] = kept_free
            scheduler = {"cls": Scheduler, "options": {**here, "port": 0}}
            self._local = SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.ERROR)
        try:
            self._client = Client(self._local or self.scheduler, set_as_default=False, timeout=JOIN_TIMEOUT)
        except (OSError, TimeoutError, ValueError) as error:
            raise JscError(
                f"scheduler = {self.scheduler!r}: cannot be reached ({error}); check address and port"
            ) from error
        self._client.subscribe_topic(worker.TOPIC, lambda event: on_event(event[1]))
        if self.scheduler is not None and self.workers is None:
            self.bulk_slots = max(1, sum(self._client.nthreads().values()))

    def warm(self, dataset: str, protocol: str, device: str) -> None:
        """Prepare every worker in the background; requests may be submitted meanwhile."""
        from distributed import fire_and_forget

        for address, info in self._client.scheduler_info(n_workers=-1)["workers"].items():
            niceness = BULK_NICENESS if "bulk" in info["resources"] else INTERACTIVE_NICENESS
            warming = self._client.submit(
                worker.warm, niceness, dataset, protocol, device, workers=[address], pure=False
            )
            fire_and_forget(warming)

    def variable(self, name: str) -> Any:
        """Return a Dask variable that lists the cancelled runs of a stack, empty at first."""
        from distributed import Variable

        variable: Any = Variable(name, client=self._client)
        variable.set([])
        return variable

    def submit(
        self, stack: str, runs: dict[str, dict[str, Any]], checkpoints: str, device: str, *, interactive: bool
    ) -> Any:
        """Start a stack; return its future."""
        options: dict[str, Any] = {}
        if self._local is not None:
            options["resources"] = {"slot": 1} if interactive else {"slot": 1, "bulk": 1}
        # A second one would wait in line there, even while another worker has nothing to do.
        kept_free = interactive and self.keep_free and (self._on_kept_free is None or self._on_kept_free.done())
        if kept_free:
            options |= {"workers": [KEPT_FREE], "allow_other_workers": True}
        future = self._client.submit(
            worker.train, stack, runs, checkpoints, device, key=f"stack-{stack}", pure=False, **options
        )
        if kept_free:
            self._on_kept_free = future
        return future

    def result(self, future: Any) -> dict[str, Any]:
        """Return what ``worker.train`` returned; a lost worker or a task that cannot run becomes its ``error``."""
        try:
            return dict(future.result())
        except (Exception, CancelledError) as error:  # Dask's cancellation may be asyncio's, which is no Exception.
            return {"outcomes": {}, "error": "".join(traceback.format_exception(error))}

    def close(self) -> None:
        """Leave the cluster; a local one ends, its workers with it."""
        for part in (self._client, self._local):
            if part is not None:
                part.close()
