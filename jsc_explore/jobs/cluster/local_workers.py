"""The workers of this machine: processes forked from one that has imported torch, each watched by a nanny."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from distributed import Nanny, Scheduler, SpecCluster, Status

from jsc_explore.jobs.engine.preload import begin_importing

log = logging.getLogger("jsc_explore.engine")
# A worker that does not come up by then lacks more than luck.
_TRIES, _PAUSE_S = 5, 0.5


class _Nanny(Nanny):
    """Starts its worker again also if it dies while it starts for the first time: Dask would end the engine."""

    async def instantiate(self) -> Status:
        """Start the worker; the status is ``running`` if it came up."""
        status: Status = await super().instantiate()
        # Later starts are tried again by Dask itself.
        for _ in range(_TRIES if self.status == Status.init else 0):
            if status == Status.running:
                break
            log.warning("worker %s died while it started, and is started again", self.name)
            await asyncio.sleep(_PAUSE_S)
            status = await super().instantiate()
        return status


def local_cluster(names: Sequence[str]) -> Any:
    """Start a scheduler and a worker process for each name."""
    begin_importing()
    # By default workers listen on every interface, and whoever reaches them can run code.
    here = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    nanny = {"cls": _Nanny, "options": {**here, "nthreads": 1, "memory_limit": 0, "silence_logs": logging.ERROR}}
    scheduler = {"cls": Scheduler, "options": {**here, "port": 0}}
    return SpecCluster(workers=dict.fromkeys(names, nanny), scheduler=scheduler, silence_logs=logging.ERROR)
