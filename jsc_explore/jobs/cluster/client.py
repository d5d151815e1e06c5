"""The Dask cluster an engine trains on: one worker process a core, and one kept free for those who wait at a screen."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsc_explore.errors import FieldError, JscError
from jsc_explore.jobs.cluster import dataset_transfer, worker
from jsc_explore.jobs.cluster.code_version import CodeVersion
from jsc_explore.jobs.cluster.worker_registry import WorkerInfo, WorkerRegistry

log = logging.getLogger("jsc_explore.engine")
# Bulk work gives way to the app and to interactive training on the same cores.
KEPT_FREE = "interactive"
BULK_NICENESS, INTERACTIVE_NICENESS = 12, 6
JOIN_TIMEOUT_S, JOIN_AGAIN_S = 10, 1.0
# Joining and leaving are told at once; only that a worker has fallen silent must be asked for.
ASK_EVERY_S = 2.0
_DASK = {
    # Events are passed on as they come; Dask's own log of them would only grow.
    "distributed.admin.low-level-log-length": 10,
    # A stack carries its checkpoints, and a parcel a whole data set.
    "distributed.admin.large-graph-warning-threshold": "1GB",
    # An engine with nothing to do took 5% of a core, nearly all of it Dask looking at itself.
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.profile.enabled": False,
    "distributed.worker.multiprocessing-method": "forkserver",
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
}


@dataclass(eq=False)
class Task:
    """A stack on a worker: what ``worker.train`` is called with, what it answered, or why it is lost."""

    stack: str
    worker_info: WorkerInfo
    dataset: str
    digest: str
    arguments: tuple[Any, ...]
    future: Any = None
    answer: dict[str, Any] | None = None
    lost: str = ""


class Cluster:
    """Workers for stacks; with ``keep_free`` one of them is for interactive requests alone.

    ``scheduler`` is the address of a running Dask scheduler, whose workers share nothing with this machine but the
    connection: every thread of theirs takes a stack, ``workers`` of them at most. Without it a local cluster of
    ``workers`` processes, by default one a core, is started. A scheduler that is not there, or no longer, is
    waited for. Raises FieldError for an address that is none. All methods are for the engine's thread alone.
    """

    def __init__(self, workers: int | None = None, scheduler: str | None = None, keep_free: bool = True) -> None:
        if scheduler is not None and not re.fullmatch(r"(tcp|tls|ws|wss|ucx|ucxx)://\S+:\d+", scheduler):
            raise FieldError("scheduler", scheduler, "is no address of a Dask scheduler", "try 'tcp://host:8786'")
        self.workers, self.scheduler = workers, scheduler
        self.keep_free = keep_free and scheduler is None
        self._workers = WorkerRegistry(KEPT_FREE if self.keep_free else None)
        self._tasks: dict[str, Task] = {}
        self._local: Any = None
        self._client: Any = None
        self._connection: Any = None
        self._joined: Any = None
        self._joining: threading.Thread | None = None
        self._closing = threading.Event()
        self._warmth: tuple[str, str, str, str] | None = None
        self._seen: Mapping[str, Mapping[str, Any]] = {}
        self._ask_at = 0.0
        self._asking = False
        self._on_event: Callable[[dict[str, Any]], None] = lambda _: None

    def start(self, on_event: Callable[[dict[str, Any]], None]) -> None:
        """Start the local cluster, or begin to join the scheduler; what workers send goes to ``on_event``."""
        import dask

        from jsc_explore.jobs.cluster.local_workers import local_cluster

        dask.config.set(_DASK)
        logging.getLogger("distributed").setLevel(logging.ERROR)
        # That a scheduler has gone is said in one line below.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        self._on_event = on_event
        if self.scheduler is None:
            names = [f"bulk-{i}" for i in range(self.workers or os.cpu_count() or 1)]
            self._local = local_cluster([*names, *[KEPT_FREE] * self.keep_free])
            self._take(self._connect(self._local))
        else:
            self._join()

    def warm(self, dataset: str, validation: str, digest: str, device: str) -> None:
        """Prepare every worker, as it comes, in the background; requests may be submitted meanwhile."""
        self._warmth = (dataset, validation, digest, device)

    def look(self) -> str:
        """Take in what has happened to scheduler and workers; return in one line what is wrong, empty if nothing is."""
        if not self._is_connected():
            self._lose()
            if self._joined is None:
                return f"waiting for the scheduler at {self.scheduler}"
            self._take(self._joined)
        self._ask()
        self._meet()
        for task in self._tasks.values():
            if self._workers.get(task.worker_info.address) is not task.worker_info:
                task.lost = f"worker {task.worker_info.name} at {task.worker_info.address} has gone"
            elif task.worker_info.silent:
                task.lost = f"worker {task.worker_info.name} at {task.worker_info.address} has fallen silent"
        if self._local is None and not any(worker_info.accepted for worker_info in self._workers):
            return self._workers.state or f"waiting for workers of the scheduler at {self.scheduler}"
        return self._workers.state

    def free(self, bulk: bool) -> int:
        """Return how many stacks may be submitted now, of bulk work or of interactive requests."""
        free = self._workers.free(bulk)
        capped = self.scheduler is not None and self.workers is not None
        return min(free, max(0, (self.workers or 0) - len(self._tasks))) if capped else free

    def submit(
        self, stack: str, runs: dict[str, dict[str, Any]], digest: str, checkpoints: dict[str, bytes], device: str,
        *, bulk: bool,
    ) -> Task:  # fmt: skip
        """Start a stack, of which one must be free; ``checkpoints`` are those it goes on from."""
        worker_info = self._workers.select_worker(bulk)
        if worker_info is None:
            raise JscError("cluster: no worker is free; the stack waits")
        dataset = next(iter(runs.values()))["dataset"]
        task = Task(stack, worker_info, dataset, digest, (stack, runs, digest, checkpoints, device))
        worker_info.stacks.add(stack)
        self._tasks[stack] = task
        self._client.loop.add_callback(self._follow, self._client, task)
        return task

    def cancel(self, task: Task, run_ids: Sequence[str]) -> None:
        """Let these runs of a stack end."""
        if self._client is not None and not task.lost:
            self._client.loop.add_callback(self._tell, self._client, task, list(run_ids))

    def done(self, task: Task) -> bool:
        """Say whether a stack has ended, one way or another."""
        return bool(task.lost) or task.answer is not None

    def result(self, task: Task) -> dict[str, Any]:
        """Return what ``worker.train`` returned, once done; ``lost`` says why there is nothing and never will be."""
        self._tasks.pop(task.stack, None)
        task.worker_info.stacks.discard(task.stack)
        if task.answer is None:
            # Should the worker live after all, this ends its training.
            if task.future is not None and self._client is not None:
                self._client.loop.add_callback(task.future.client.cancel, [task.future], asynchronous=True)
            return {"outcomes": {}, "lost": task.lost}
        return task.answer

    def close(self) -> None:
        """Leave the cluster; a local one ends, its workers with it."""
        self._closing.set()
        if self._joining is not None:
            self._joining.join()
        for part in (self._client, self._joined, self._local):
            if part is not None:
                part.close()

    # ---- the scheduler

    def _connect(self, where: Any) -> Any:
        from distributed import Client

        return Client(where, set_as_default=False, timeout=JOIN_TIMEOUT_S)

    def _join(self) -> None:
        """Try to reach the scheduler until it is there, in a thread: the engine goes on saying what it waits for."""

        def join() -> None:
            while not self._closing.is_set():
                try:
                    self._joined = self._connect(self._local or self.scheduler)
                    return
                except Exception as error:
                    log.debug("scheduler %s: %s", self.scheduler, error)
                    self._closing.wait(JOIN_AGAIN_S)

        self._joined = None
        self._joining = threading.Thread(target=join, name="join-scheduler", daemon=True)
        self._joining.start()

    def _take(self, client: Any) -> None:
        """Work with this client from now on."""
        self._client, self._joined = client, None
        self._connection = client.scheduler_comm
        client.subscribe_topic(worker.TOPIC, lambda event: self._pass_on(client, event[1]))
        client.subscribe_topic("all", self._note)
        self._seen, self._ask_at, self._asking = {}, 0.0, False
        if self._local is None:
            log.warning("joined the scheduler at %s", self.scheduler)

    def _is_connected(self) -> bool:
        # Dask's client may come back by itself within a moment, but without its tasks and subscriptions.
        client = self._client
        return client is not None and client.status == "running" and client.scheduler_comm is self._connection

    def _lose(self) -> None:
        """Give up a scheduler that is gone, with all that was under way there, and begin to look for it again."""
        if self._client is None:
            return
        log.warning("lost the scheduler at %s", self.scheduler)
        gone, self._client = self._client, None
        self._workers.clear()
        for task in self._tasks.values():
            task.lost = f"the scheduler at {self.scheduler} has gone"
        threading.Thread(target=gone.close, name="leave-scheduler", daemon=True).start()
        self._join()

    def _ask(self) -> None:
        """Ask the scheduler about its workers, in the background."""
        if self._asking or time.monotonic() < self._ask_at:
            return
        self._asking, self._ask_at, client = True, time.monotonic() + ASK_EVERY_S, self._client

        async def ask() -> None:
            try:
                seen = (await client.scheduler.identity(n_workers=-1))["workers"]
                if client is self._client:
                    self._seen = seen
            except Exception as error:
                log.debug("scheduler %s: %s", self.scheduler, error)
            finally:
                self._asking = False

        client.loop.add_callback(ask)

    def _note(self, event: tuple[float, dict[str, Any]]) -> None:
        if event[1].get("action") in ("add-worker", "remove-worker"):
            self._ask_at = 0.0

    # ---- its workers

    def _meet(self) -> None:
        """Greet the workers that have come."""
        for address, name, threads in self._workers.update(self._seen):
            worker_info = WorkerInfo(address, name, threads)
            self._workers.add(worker_info)
            self._client.loop.add_callback(self._greet, self._client, worker_info)

    # ---- what follows runs in the thread of Dask's client

    async def _greet(self, client: Any, worker_info: WorkerInfo) -> None:
        """Ask a worker which project it runs; one that runs ours is prepared for its first stack."""
        try:
            said = dict(await client.submit(worker.greet, workers=[worker_info.address], pure=False))
        except (Exception, CancelledError) as error:
            said = {"host": worker_info.address, "error": error}
        worker_info.judge(said, CodeVersion.own())
        if worker_info.refusal:
            log.error("%s", worker_info.refusal)
        elif self._warmth:
            niceness = 0
            if self._local is not None:
                niceness = INTERACTIVE_NICENESS if worker_info.name == KEPT_FREE else BULK_NICENESS
            worker_info.warming = client.submit(
                worker.warm, niceness, *self._warmth, workers=[worker_info.address], pure=False
            )

    async def _follow(self, client: Any, task: Task) -> None:
        """See a stack to its end; where the worker lacks the jets, send them first, once to each worker."""
        delivered = False
        try:
            while True:
                where = [task.worker_info.address]
                task.future = client.submit(worker.train, *task.arguments, workers=where, pure=False)
                answer = dict(await task.future)
                if not answer.pop("needs", False) or delivered:
                    break
                await self._deliver(client, task)
                delivered = True
        except (Exception, CancelledError) as error:  # Dask's cancellation is asyncio's, which is no Exception.
            # What fails in training is an answer; this is the cluster's.
            task.lost = task.lost or f"{type(error).__name__}: {' '.join(str(error).split())}"
        else:
            task.answer = answer if "outcomes" in answer else {"outcomes": {}, "error": f"{where[0]} lost its jets"}

    async def _deliver(self, client: Any, task: Task) -> None:
        parcels = task.worker_info.parcels
        if task.digest not in parcels:
            content = await asyncio.to_thread(dataset_transfer.wrap, task.dataset)
            arguments = (task.dataset, task.digest, *content)
            parcels[task.digest] = client.submit(
                dataset_transfer.receive, *arguments, workers=[task.worker_info.address], pure=False
            )
            log.warning("sent the jets of %s to worker %s", task.dataset, task.worker_info.name)
        try:
            await parcels[task.digest]
        finally:
            # It has them, or must be sent them again.
            parcels.pop(task.digest, None)

    async def _tell(self, client: Any, task: Task, run_ids: Sequence[str]) -> None:
        """Tell a stack which runs to cancel, until it has heard or ended."""
        while task.stack in self._tasks and client.status == "running":
            address = task.worker_info.address
            heard = await client.run(
                worker.cancel, task.stack, run_ids, workers=[address], on_error="ignore", asynchronous=True
            )
            if address in heard:
                return
            await asyncio.sleep(JOIN_AGAIN_S)

    def _pass_on(self, client: Any, event: dict[str, Any]) -> None:
        task = self._tasks.get(event["stack"])
        if event.pop("mail", False) and task is not None:
            client.loop.add_callback(self._fetch, client, task)
        if "totals" in event:
            self._on_event(event)

    async def _fetch(self, client: Any, task: Task) -> None:
        """Bring the checkpoints and outcomes that a stack has announced; lost ones come again."""
        address = task.worker_info.address
        reply = await client.run(worker.fetch, task.stack, workers=[address], on_error="ignore", asynchronous=True)
        brought = reply.get(address, {"checkpoints": {}, "outcomes": {}})
        if brought["checkpoints"]:
            self._on_event({"stack": task.stack, "checkpoints": brought["checkpoints"]})
        for run_id, outcome in brought["outcomes"].items():
            self._on_event({"stack": task.stack, "finished": run_id, "outcome": outcome})
