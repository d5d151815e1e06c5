"""Local workers: processes forked from a server that has imported torch, each restarted by a Dask nanny."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from distributed import Nanny, Scheduler, SpecCluster, Status

from jsc_explore.jobs.engine.preload import start_fork_server

log = logging.getLogger("jsc_explore.engine")
# After this many failed starts the cause is not transient.
_RETRIES, _RETRY_DELAY_S = 5, 0.5


class _Nanny(Nanny):
    """A nanny that also retries its worker's first start, where Dask would end the engine."""

    async def instantiate(self) -> Status:
        """Start the worker; return the status, ``running`` on success."""
        status: Status = await super().instantiate()
        # Dask itself retries later starts.
        for _ in range(_RETRIES if self.status == Status.init else 0):
            if status == Status.running:
                break
            log.warning("worker %s died during its start; starting it again", self.name)
            await asyncio.sleep(_RETRY_DELAY_S)
            status = await super().instantiate()
        return status


def local_cluster(names: Sequence[str]) -> Any:
    """Start a scheduler and a worker process for each name."""
    start_fork_server()
    # By default workers listen on all interfaces, where anybody could run code on them.
    local = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    nanny = {"cls": _Nanny, "options": {**local, "nthreads": 1, "memory_limit": 0, "silence_logs": logging.ERROR}}
    scheduler = {"cls": Scheduler, "options": {**local, "port": 0}}
    return SpecCluster(workers=dict.fromkeys(names, nanny), scheduler=scheduler, silence_logs=logging.ERROR)
