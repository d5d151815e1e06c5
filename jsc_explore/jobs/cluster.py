"""The Dask cluster an engine trains on: one worker process a core, and one kept free for those who wait at a screen."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from jsc_explore.errors import JscError
from jsc_explore.jobs import worker

# Bulk work gives way to the app and to interactive training on the same cores.
KEPT_FREE = "interactive"
BULK_NICENESS, INTERACTIVE_NICENESS = 10, 2


class Cluster:
    """Workers for stacks: ``bulk_slots`` for anything, with ``keep_free`` one more for interactive requests alone.

    ``scheduler`` is the address of a running Dask scheduler; without it a local cluster is started.
    """

    def __init__(self, workers: int | None = None, scheduler: str | None = None, keep_free: bool = True) -> None:
        self.bulk_slots = workers or os.cpu_count() or 1
        self.scheduler = scheduler
        self.keep_free = keep_free and scheduler is None
        self._local: Any = None
        self._client: Any = None

    @property
    def slots(self) -> int:
        """Stacks that may run at once."""
        return self.bulk_slots + self.keep_free

    def start(self, on_event: Callable[[dict[str, Any]], None]) -> None:
        """Start or join the cluster; events of the workers go to ``on_event``, from another thread."""
        import dask
        from distributed import Client, Nanny, Scheduler, SpecCluster

        # Events are passed on as they come; Dask's own log of them would only grow.
        dask.config.set({"distributed.admin.low-level-log-length": 10, "distributed.scheduler.allowed-failures": 3})
        logging.getLogger("distributed").setLevel(logging.ERROR)
        if self.scheduler is None:
            options = {"nthreads": 1, "memory_limit": 0, "dashboard": False, "silence_logs": logging.ERROR}
            bulk = {"cls": Nanny, "options": {**options, "resources": {"slot": 1, "bulk": 1}}}
            kept_free = {"cls": Nanny, "options": {**options, "resources": {"slot": 1}}}
            workers = {f"bulk-{i}": bulk for i in range(self.bulk_slots)}
            if self.keep_free:
                workers[KEPT_FREE] = kept_free
            scheduler = {
                "cls": Scheduler,
                "options": {"dashboard": False, "host": "127.0.0.1", "port": 0, "dashboard_address": None},
            }
            self._local = SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.ERROR)
        try:
            self._client = Client(self._local or self.scheduler, set_as_default=False, timeout="20s")
        except (OSError, TimeoutError) as error:
            raise JscError(
                f"scheduler = {self.scheduler!r}: cannot be reached ({error}); check address and port"
            ) from error
        self._client.subscribe_topic(worker.TOPIC, lambda event: on_event(event[1]))

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
            if interactive and self.keep_free:
                options |= {"workers": [KEPT_FREE], "allow_other_workers": True}
        return self._client.submit(
            worker.train, stack, runs, checkpoints, device, key=f"stack-{stack}", pure=False, **options
        )

    def result(self, future: Any) -> dict[str, Any]:
        """Return what ``worker.train`` returned; a lost worker or a task that cannot run becomes its ``error``."""
        import traceback

        error = future.exception()
        if error is None:
            return dict(future.result())
        return {"outcomes": {}, "error": "".join(traceback.format_exception(error))}

    def close(self) -> None:
        """Leave the cluster; a local one ends, its workers with it."""
        for part in (self._client, self._local):
            if part is not None:
                part.close()
