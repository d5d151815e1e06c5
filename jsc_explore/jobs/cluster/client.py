"""Cluster client: run stacks on the workers of a Dask scheduler, and collect what they send."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsc_explore.errors import JscError
from jsc_explore.jobs.cluster import dataset_transfer, worker
from jsc_explore.jobs.cluster.code_version import CodeVersion
from jsc_explore.jobs.cluster.connection import SchedulerConnection
from jsc_explore.jobs.cluster.worker_registry import WorkerInfo, WorkerRegistry
from jsc_explore.jobs.worker import warm_up

log = logging.getLogger("jsc_explore.engine")
CONNECT_TIMEOUT_S, RETRY_S = 10, 1.0
# Dask announces workers that join or leave; their heartbeats must be polled.
POLL_INTERVAL_S = 2.0
_DASK = {
    # Events are forwarded at once; Dask's own log of them would only grow.
    "distributed.admin.low-level-log-length": 10,
    # A stack carries its checkpoints, and a transfer a whole data set.
    "distributed.admin.large-graph-warning-threshold": "1GB",
    # An idle engine took 5% of a core, nearly all of it for Dask's monitoring of itself.
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
}


@dataclass(eq=False)
class Task:
    """A stack on a worker: the arguments of ``worker.train``, its return value, or why the stack was lost."""

    stack: str
    worker_info: WorkerInfo
    dataset: str
    digest: str
    arguments: tuple[Any, ...]
    future: Any = None
    result: dict[str, Any] | None = None
    lost: str = ""


class Cluster:
    """The workers of a running Dask scheduler.

    They share only the connection with this machine; each of their threads takes a stack, at most ``workers`` stacks
    in all. An unreachable scheduler is tried again until it answers. Only the engine's thread may call the methods.
    """

    # Workers elsewhere have GPUs of their own, of unknown size.
    gpu_stacks = None

    def __init__(self, scheduler: SchedulerConnection, workers: int | None = None) -> None:
        self.workers, self.scheduler = workers, scheduler.address
        self._security = scheduler.security()
        self._workers = WorkerRegistry()
        self._tasks: dict[str, Task] = {}
        self._client: Any = None
        self._connection: Any = None
        self._new_client: Any = None
        self._connecting: threading.Thread | None = None
        self._closing = threading.Event()
        self._warm_up_with: tuple[str, str, str, str] | None = None
        self._statuses: Mapping[str, Mapping[str, Any]] = {}
        self._poll_at = 0.0
        self._is_polling = False
        self._on_event: Callable[[dict[str, Any]], None] = lambda _: None

    def start(self, on_event: Callable[[dict[str, Any]], None]) -> None:
        """Start connecting to the scheduler; ``on_event`` receives the workers' events."""
        import dask

        dask.config.set(_DASK)
        logging.getLogger("distributed").setLevel(logging.ERROR)
        # ``_disconnect`` reports a lost scheduler in one line.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        self._on_event = on_event
        self._connect_in_background()

    def warm_up(self, dataset: str, validation: str, digest: str, device: str) -> None:
        """Let each worker warm up in the background when it joins; stacks may be submitted meanwhile."""
        self._warm_up_with = (dataset, validation, digest, device)

    def update(self) -> str:
        """Update workers and lost tasks from the scheduler; return a problem in one line, or an empty text."""
        if not self._is_connected():
            self._disconnect()
            if self._new_client is None:
                return f"waiting for the scheduler at {self.scheduler}"
            self._use(self._new_client)
        self._poll()
        for worker_info in self._workers.update(self._statuses):
            self._workers.add(worker_info)
            self._client.loop.add_callback(self._check_worker, self._client, worker_info)
        for task in self._tasks.values():
            name = f"worker {task.worker_info.name} at {task.worker_info.address}"
            if self._workers.get(task.worker_info.address) is not task.worker_info:
                task.lost = f"{name} is gone"
            elif task.worker_info.timed_out:
                task.lost = f"{name} sends no heartbeat"
        if not any(worker_info.accepted for worker_info in self._workers):
            return self._workers.problem or f"waiting for workers of the scheduler at {self.scheduler}"
        return self._workers.problem

    def keep_ready(self, is_visited: bool) -> None:
        """Do nothing: others start and end the workers of a cluster."""

    def free_slots(self, bulk: bool) -> int:
        """Return how many bulk or interactive stacks may be submitted now."""
        free = self._workers.free_slots(bulk)
        return free if self.workers is None else min(free, max(0, self.workers - len(self._tasks)))

    def submit(
        self, stack: str, runs: dict[str, dict[str, Any]], digest: str, checkpoints: dict[str, bytes], device: str,
        *, bulk: bool,
    ) -> Task:  # fmt: skip
        """Start a stack from ``checkpoints`` by run id; raise JscError if no slot is free."""
        worker_info = self._workers.select_worker()
        if worker_info is None:
            raise JscError("cluster: no worker is free; wait for one")
        dataset = next(iter(runs.values()))["dataset"]
        task = Task(stack, worker_info, dataset, digest, (stack, runs, digest, checkpoints, device))
        worker_info.stacks.add(stack)
        self._tasks[stack] = task
        self._client.loop.add_callback(self._run_task, self._client, task)
        return task

    def cancel(self, task: Task, run_ids: Sequence[str]) -> None:
        """Cancel these runs of a stack."""
        if self._client is not None and not task.lost:
            self._client.loop.add_callback(self._send_cancel, self._client, task, list(run_ids))

    def is_done(self, task: Task) -> bool:
        """Return whether a stack has ended or is lost."""
        return bool(task.lost) or task.result is not None

    def result(self, task: Task) -> dict[str, Any]:
        """Return a finished stack's result of ``worker.train``; ``"lost"`` gives the reason if there is none."""
        self._tasks.pop(task.stack, None)
        task.worker_info.stacks.discard(task.stack)
        if task.result is None:
            # Ends the training of a worker that is alive after all.
            if task.future is not None and self._client is not None:
                self._client.loop.add_callback(task.future.client.cancel, [task.future], asynchronous=True)
            return {"outcomes": {}, "lost": task.lost}
        return task.result

    def close(self) -> None:
        """Disconnect."""
        self._closing.set()
        if self._connecting is not None:
            self._connecting.join()
        for connection in (self._client, self._new_client):
            if connection is not None:
                connection.close()

    # ---- the scheduler

    def _connect(self) -> Any:
        from distributed import Client

        return Client(self.scheduler, security=self._security, set_as_default=False, timeout=CONNECT_TIMEOUT_S)

    def _connect_in_background(self) -> None:
        """Try to connect in a thread until it succeeds; the engine keeps running and reports that it waits."""

        def connect() -> None:
            while not self._closing.is_set():
                try:
                    self._new_client = self._connect()
                    return
                except Exception as error:
                    log.debug("scheduler %s: %s", self.scheduler, error)
                    self._closing.wait(RETRY_S)

        self._new_client = None
        self._connecting = threading.Thread(target=connect, name="connect-scheduler", daemon=True)
        self._connecting.start()

    def _use(self, client: Any) -> None:
        """Use this client from now on."""
        self._client, self._new_client = client, None
        self._connection = client.scheduler_comm
        client.subscribe_topic(worker.TOPIC, lambda event: self._forward(client, event[1]))
        client.subscribe_topic("all", self._on_scheduler_event)
        self._statuses, self._poll_at, self._is_polling = {}, 0.0, False
        log.warning("connected to the scheduler at %s", self.scheduler)

    def _is_connected(self) -> bool:
        # Dask's client may reconnect by itself, but without its tasks and subscriptions.
        client = self._client
        return client is not None and client.status == "running" and client.scheduler_comm is self._connection

    def _disconnect(self) -> None:
        """Give up a lost scheduler with all its tasks, and start connecting again."""
        if self._client is None:
            return
        log.warning("lost the scheduler at %s", self.scheduler)
        lost, self._client = self._client, None
        self._workers.clear()
        for task in self._tasks.values():
            task.lost = f"the scheduler at {self.scheduler} is gone"
        threading.Thread(target=lost.close, name="leave-scheduler", daemon=True).start()
        self._connect_in_background()

    def _poll(self) -> None:
        """Request the workers' statuses from the scheduler, in the background."""
        if self._is_polling or time.monotonic() < self._poll_at:
            return
        self._is_polling, self._poll_at, client = True, time.monotonic() + POLL_INTERVAL_S, self._client

        async def poll() -> None:
            try:
                statuses = (await client.scheduler.identity(n_workers=-1))["workers"]
                if client is self._client:
                    self._statuses = statuses
            except Exception as error:
                log.debug("scheduler %s: %s", self.scheduler, error)
            finally:
                self._is_polling = False

        client.loop.add_callback(poll)

    def _on_scheduler_event(self, event: tuple[float, dict[str, Any]]) -> None:
        if event[1].get("action") in ("add-worker", "remove-worker"):
            self._poll_at = 0.0

    # ---- the methods below run in the thread of Dask's client

    async def _check_worker(self, client: Any, worker_info: WorkerInfo) -> None:
        """Accept a new worker if it has the engine's code version, and let it warm up."""
        try:
            description = dict(await client.submit(worker.describe, workers=[worker_info.address], pure=False))
        except (Exception, CancelledError) as error:
            description = {"host": worker_info.address, "error": error}
        worker_info.check_version(description, CodeVersion.own())
        if worker_info.refusal:
            log.error("%s", worker_info.refusal)
        elif self._warm_up_with:
            arguments, address = self._warm_up_with, worker_info.address
            worker_info.warm_up = client.submit(warm_up, *arguments, workers=[address], pure=False)

    async def _run_task(self, client: Any, task: Task) -> None:
        """Train a stack; if the worker lacks the jets, send them and try once more."""
        is_sent = False
        try:
            while True:
                address = task.worker_info.address
                task.future = client.submit(worker.train, *task.arguments, workers=[address], pure=False)
                result = dict(await task.future)
                if not result.pop("needs_data", False) or is_sent:
                    break
                await self._send_data(client, task)
                is_sent = True
        except (Exception, CancelledError) as error:  # Dask's cancellation is asyncio's, which is no Exception.
            # An error of training is part of the result; this one is the cluster's.
            task.lost = task.lost or f"{type(error).__name__}: {' '.join(str(error).split())}"
        else:
            task.result = result if "outcomes" in result else {"outcomes": {}, "error": f"{address} lost its jets"}

    async def _send_data(self, client: Any, task: Task) -> None:
        """Send a task's jets to its worker, once for all stacks that wait for them."""
        transfers = task.worker_info.transfers
        if task.digest not in transfers:
            content = await asyncio.to_thread(dataset_transfer.read_files, task.dataset)
            arguments = (task.dataset, task.digest, *content)
            transfers[task.digest] = client.submit(
                dataset_transfer.receive, *arguments, workers=[task.worker_info.address], pure=False
            )
            log.warning("sent the jets of %s to worker %s", task.dataset, task.worker_info.name)
        try:
            await transfers[task.digest]
        finally:
            # Received, or to be sent again after an error.
            transfers.pop(task.digest, None)

    async def _send_cancel(self, client: Any, task: Task, run_ids: Sequence[str]) -> None:
        """Send a cancellation until the worker confirms it or the stack has ended."""
        while task.stack in self._tasks and client.status == "running":
            address = task.worker_info.address
            confirmed = await client.run(
                worker.cancel, task.stack, run_ids, workers=[address], on_error="ignore", asynchronous=True
            )
            if address in confirmed:
                return
            await asyncio.sleep(RETRY_S)

    def _forward(self, client: Any, event: dict[str, Any]) -> None:
        """Forward a progress event to the engine; fetch the outbox that an event announces."""
        task = self._tasks.get(event["stack"])
        if event.pop("has_outbox", False) and task is not None:
            client.loop.add_callback(self._fetch, client, task)
        if "total_steps" in event:
            self._on_event(event)

    async def _fetch(self, client: Any, task: Task) -> None:
        """Fetch a stack's outbox; if the reply is lost, the task's result and later checkpoints replace it."""
        address = task.worker_info.address
        reply = await client.run(worker.fetch, task.stack, workers=[address], on_error="ignore", asynchronous=True)
        content = reply.get(address, {"checkpoints": {}, "outcomes": {}})
        if content["checkpoints"]:
            self._on_event({"stack": task.stack, "checkpoints": content["checkpoints"]})
        for run_id, outcome in content["outcomes"].items():
            self._on_event({"stack": task.stack, "finished": run_id, "outcome": outcome})
