"""The engine: packs queued runs into stacks, trains them in workers and stores the results. One engine per store."""

from __future__ import annotations

import logging
import os
import queue as queues
import signal
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from jsc_explore import data
from jsc_explore.errors import JscError, StoreError, StoreGoneError
from jsc_explore.jobs.calibration import IdleCalibrator
from jsc_explore.jobs.cluster.client import Cluster
from jsc_explore.jobs.engine.checkpoints import Checkpoints
from jsc_explore.jobs.engine.crash_tracker import MAX_CRASHES, CrashTracker
from jsc_explore.jobs.engine.disk_reserve import DiskReserve
from jsc_explore.jobs.engine.gpu_memory import gpu_bytes
from jsc_explore.jobs.engine.pending_results import PendingResults
from jsc_explore.jobs.engine.preload import next_run
from jsc_explore.jobs.local.pool import LocalPool
from jsc_explore.jobs.packing import StackPlan, pack
from jsc_explore.jobs.queue import BULK, INTERACTIVE, Job, Queue
from jsc_explore.results import Point
from jsc_explore.store import Store
from jsc_explore.store.directory import StoreDirectory, open_directory

log = logging.getLogger("jsc_explore.engine")
# Seconds between two steps of the main loop, which reads the queue and writes points and progress.
LOOP_INTERVAL_S = 0.05
HEARTBEAT_INTERVAL_S = 1.0
# A page that is open says so every 20 s, one behind others in the browser at least once a minute.
VISIT_TIMEOUT_S = 120.0
# Slots for interactive stacks that no longer work takes, not even the first stack of a session.
KEPT_SLOTS = 2
# Seconds between two attempts to write to a full disk.
RETRY_S = 1.0
# Seconds that an engine may take to end its workers.
SHUTDOWN_TIMEOUT_S = 30.0


@dataclass
class _Stack:
    """A submitted stack: its plan, jobs by run id, task on the cluster, the runs whose cancellation was sent."""

    plan: StackPlan
    jobs: dict[str, Job]
    task: Any
    cancelled: set[str] = field(default_factory=set)


class Engine:
    """Serves the queue of one store until it is stopped.

    Raises StoreError if another engine serves the store. A finished run is stored before it is marked done. If it
    cannot be stored (disk full) it stays in memory, the heartbeat's message says so, and each second it is tried again.
    """

    def __init__(
        self,
        directory: Path | StoreDirectory,
        snapshot: Path | None,
        cluster: LocalPool | Cluster,
        device: str = "auto",
    ) -> None:
        self.home = open_directory(directory)
        self.directory, self.cluster, self.device = self.home.path, cluster, device
        self.reserve = DiskReserve(self.directory / "reserve")
        # A crashed engine may have left the disk full; opening the databases needs some space.
        self.reserve.release_if_full()
        self.store = Store(self.home, snapshot)
        self.queue = Queue(self.home)
        self._lock = FileLock(self.directory / "engine.lock", thread_local=False)
        self._acquire_lock()
        self.queue.set_heartbeat(os.getpid(), "starting")
        self.checkpoints = Checkpoints(self.home)
        self._events: queues.SimpleQueue[dict[str, Any]] = queues.SimpleQueue()
        self._stacks: dict[str, _Stack] = {}
        self._results = PendingResults()
        self._points: list[tuple[str, Point]] = []
        self._progress: dict[str, tuple[int, int]] = {}
        self._crashes = CrashTracker()
        self._steps: dict[str, int] = {}
        self._stop = threading.Event()
        self._message = self._cluster_problem = ""
        self._heartbeat_at = self._stored_at = 0.0

    def stop(self) -> None:
        """Let ``serve`` end; active runs go back to the queue."""
        self._stop.set()

    def serve(self, *, until_idle: bool = False) -> None:
        """Train until stopped, or until no run is queued or running if ``until_idle`` is set."""
        try:
            self._recover()
            self.cluster.start(self._events.put)
            if not until_idle:
                self._warm_up()
            calibrator = IdleCalibrator(self.home)
            while not self._stop.is_set():
                is_busy = self._step()
                calibrator.update(is_busy)
                if until_idle and not is_busy:
                    break
                self._stop.wait(LOOP_INTERVAL_S)
        finally:
            self._shut_down()

    def _warm_up(self) -> None:
        """Let the workers load the data of the next waiting run, or of the default run."""
        run = next_run(self.home)
        with suppress(JscError):  # The run itself reports missing jets.
            self.cluster.warm_up(run.dataset, run.validation, data.digest(run.dataset), self.device)

    def _step(self) -> bool:
        """Do one step of the main loop; return whether any run is queued, running or not stored yet.

        Raises StoreGoneError if the store's directory was renamed, removed or replaced.
        """
        self.home.check()
        try:
            self._process_events()
            self._check_disk()
            self._write_progress()
            self._update_cluster()
            self._collect_stacks()
            self._store_results()
            self._send_cancellations()
            self._submit_waiting()
            self._write_heartbeat()
            return bool(self._stacks or self._results or self.queue.has_waiting())
        except StoreGoneError:
            raise
        except JscError as error:
            # A full disk or a locked database is temporary; what was not written is still in memory.
            if str(error) != self._message:
                log.error("%s", error)
            self._message = str(error)
            self.reserve.release_if_full()
            with suppress(JscError):
                self._write_heartbeat()
            self._stop.wait(RETRY_S)
            return True

    # ---- start and end

    def _acquire_lock(self) -> None:
        deadline = time.monotonic() + SHUTDOWN_TIMEOUT_S
        while True:
            try:
                self._lock.acquire(timeout=0)
                return
            except Timeout as error:
                state = self.queue.engine()
                # An engine with the lock and without a heartbeat is shutting down: wait for it.
                if (state is not None and state.is_alive) or time.monotonic() > deadline:
                    self.queue.close()
                    self.store.close()
                    raise StoreError(
                        f"store {self.directory}: is served by another engine already; use that one"
                    ) from error
                time.sleep(LOOP_INTERVAL_S)
            except (OSError, NotImplementedError) as error:
                self.queue.close()
                self.store.close()
                raise StoreError(
                    f"store {self.directory}: its file system has no locks ({error}); choose a local disk with --store"
                ) from error

    def _recover(self) -> None:
        """Take over from an engine that crashed: delete partial files, finish stored runs, queue the others again."""
        for line in self.store.recover().lines():
            log.warning("%s", line)
        running = [job.run_id for job in self.queue.jobs(("running",))]
        self._finish_stored(running)
        self.queue.requeue(running, "the engine ended")
        self.checkpoints.recover({job.run_id for job in self.queue.jobs(("queued",))})

    def _finish_stored(self, run_ids: Iterable[str]) -> set[str]:
        """Mark those of these runs that are stored as finished; return them."""
        rows = self.store.runs({"run_id": list(run_ids)}, ["run_id", "status"]).to_pylist()
        for row in rows:
            self.queue.finish(row["run_id"], row["status"])
        return {row["run_id"] for row in rows}

    def _shut_down(self) -> None:
        try:
            self._process_events()
            self.reserve.release()
            self._write_progress()
            self._store_results(force=True)
            active = [run_id for stack in self._stacks.values() for run_id in stack.jobs]
            self.queue.requeue([*active, *self._results], "the engine was stopped")
            self.queue.clear_heartbeat()
        except StoreGoneError:
            pass  # ``serve`` has raised it. A next engine queues the active runs again where the store is now.
        except JscError as error:
            log.error("%s", error)
        try:
            self.cluster.close()
        finally:
            self.checkpoints.close()
            self.queue.close()
            self.store.close()
            self._lock.release()

    # ---- results from workers

    def _check_disk(self) -> None:
        if not self.reserve.acquire():
            raise StoreError(
                f"store {self.directory}: its disk is full; make room: finished runs wait in memory, none is lost"
            )

    def _process_events(self) -> None:
        """Process the points, checkpoints and outcomes that workers sent."""
        while True:
            try:
                event = self._events.get_nowait()
            except queues.Empty:
                break
            stack = self._stacks.get(event["stack"])
            if stack is None:
                continue
            if "outcome" in event:
                self._add_result(stack, event["finished"], event["outcome"])
                continue
            if "checkpoints" in event:
                for run_id in stack.jobs.keys() & event["checkpoints"].keys():
                    self.checkpoints.save(run_id, event["checkpoints"][run_id])
                continue
            self._points += [(run_id, point) for run_id, point in event["points"] if run_id in stack.jobs]
            self._progress |= {run_id: (event["step"], total) for run_id, total in event["total_steps"].items()}
            self._steps |= dict.fromkeys(event["total_steps"], event["step"])
            for run_id in stack.cancelled & set(stack.jobs) - set(event["total_steps"]):
                self._remove_cancelled(stack, run_id)

    def _write_progress(self) -> None:
        """Write points and progress into the queue; if that fails they stay for the next step."""
        self.queue.record_progress(self._points, self._progress)
        self._points, self._progress = [], {}

    def _remove_cancelled(self, stack: _Stack, run_id: str) -> None:
        """Remove a cancelled run from its stack; if it was requested again meanwhile, it is queued again."""
        self.queue.requeue([run_id])
        del stack.jobs[run_id]
        self._drop(run_id)

    def _fail(self, run_id: str, error: str) -> None:
        self.queue.finish(run_id, "failed", error)
        self._drop(run_id)

    def _drop(self, run_id: str) -> None:
        self.checkpoints.drop(run_id)
        self._crashes.drop(run_id)
        self._steps.pop(run_id, None)

    def _add_result(self, stack: _Stack, run_id: str, values: dict[str, Any]) -> None:
        job = stack.jobs.get(run_id)
        if job is None:
            return
        try:
            self._results.add(job, values)
        except (JscError, TypeError):  # The jets were deleted, or the outcome has other fields.
            self._fail(run_id, traceback.format_exc())
        del stack.jobs[run_id]

    def _collect_stacks(self) -> None:
        for name, stack in list(self._stacks.items()):
            if not self.cluster.is_done(stack.task):
                continue
            result = self.cluster.result(stack.task)
            if "lost" in result:
                self._requeue_lost(stack, result["lost"])
            for run_id, outcome in result["outcomes"].items():
                self._add_result(stack, run_id, outcome)
            error = result.get("error") or "the worker ended without an outcome"
            for run_id in list(stack.jobs):
                if run_id in stack.cancelled:
                    self._remove_cancelled(stack, run_id)
                else:
                    self._fail(run_id, error)
                    del stack.jobs[run_id]
            # Last: if the queue could not be written above, the stack is collected again.
            del self._stacks[name]

    def _requeue_lost(self, stack: _Stack, reason: str) -> None:
        """Queue the runs of a lost stack again; they continue from their checkpoints."""
        run_ids = [run_id for run_id in stack.jobs if run_id not in stack.cancelled]
        log.warning("%s; %d runs are queued again", reason, len(run_ids))
        for run_id in run_ids:
            if self._crashes.add(run_id, self._steps.get(run_id, 0), alone=len(run_ids) == 1):
                self._fail(run_id, f"its worker was lost {MAX_CRASHES} times without progress, last: {reason}")
            else:
                self.queue.requeue([run_id], reason)
            del stack.jobs[run_id]

    def _update_cluster(self) -> None:
        problem = self.cluster.update()
        if problem != self._cluster_problem:
            log.warning("%s", problem or "the cluster works again")
            self._cluster_problem, self._heartbeat_at = problem, 0.0

    def _store_results(self, force: bool = False) -> None:
        if self._message and not force and time.monotonic() - self._stored_at < RETRY_S:
            return
        self._stored_at = time.monotonic()
        try:
            for run_id, status, error in self._results.store(self.store):
                self.queue.finish(run_id, status, error)
                self._drop(run_id)
        except StoreError as error:
            self._message = f"{error}; {len(self._results)} finished runs wait in memory"
            log.error("%s", self._message)
            return
        self._message = ""

    # ---- work for the cluster

    def _send_cancellations(self) -> None:
        if not self._stacks:
            return
        cancelling = self.queue.cancelling()
        for stack in self._stacks.values():
            if new := (cancelling & set(stack.jobs)) - stack.cancelled:
                stack.cancelled |= new
                self.cluster.cancel(stack.task, sorted(new))

    def _submit_waiting(self) -> None:
        """Submit stacks of waiting runs to free workers.

        Slots that bulk work cannot take are for the first interactive stack of a session that finds no other: a session
        that has one already waits for the other slots. The last of them is for an address without an interactive stack:
        one visitor may open any number of sessions; commands have no address. All but ``KEPT_SLOTS`` of them are also
        for the first stack of a session that has nothing running at all, however long it takes.
        """
        free, free_bulk = self.cluster.free_slots(bulk=False), self.cluster.free_slots(bulk=True)
        plans = [stack.plan for stack in self._stacks.values()]
        served = {plan.session for plan in plans}
        running = Counter(plan.session for plan in plans if plan.priority == INTERACTIVE)
        addresses = {plan.address for plan in plans if plan.priority == INTERACTIVE and plan.address}
        # Read only runs that can start now: a long queue must not be read twenty times a second.
        waiting = self.queue.waiting() if free_bulk > 0 else []
        if free_bulk == 0 and free > 0:
            others = addresses if free == 1 else ()
            waiting = self.queue.waiting(INTERACTIVE, sessions_left_out=running, addresses_left_out=others)
        if free_bulk == 0 and free > KEPT_SLOTS:
            waiting += [job for job in self.queue.waiting(sessions_left_out=served) if job.priority == BULK]
        if not waiting:
            return
        resumable = {job.run_id: self.checkpoints.epoch(job.run_id) for job in waiting}
        suspects = self._crashes.suspects()
        for plan in pack(waiting, free_bulk, resumable, self._gpu_bytes(), suspects, running.elements()):
            bulk = plan.priority == BULK or running[plan.session] > 0
            free = self.cluster.free_slots(bulk=False)
            if bulk:
                is_free = plan.session not in served and free > KEPT_SLOTS
            else:
                is_free = free > 1 or (free == 1 and plan.address not in addresses)
            if (is_free or self.cluster.free_slots(bulk=True) > 0) and self._submit(plan, bulk):
                served.add(plan.session)
                if plan.priority == INTERACTIVE:
                    running[plan.session] += 1
                    addresses |= {plan.address} - {""}

    def _gpu_bytes(self) -> int | None:
        """Return the GPU memory per stack; None for CPU workers, and for remote ones, whose GPU is unknown here."""
        stacks = self.cluster.gpu_stacks
        memory = gpu_bytes(self.device) if stacks else None
        return memory // stacks if memory and stacks else None

    def _submit(self, plan: StackPlan, bulk: bool) -> bool:
        """Submit a stack; return whether any of its runs was still to train."""
        jobs = {job.run_id: job for job in plan.jobs}
        try:
            digest = data.digest(plan.jobs[0].config.dataset)
        except JscError:  # The data set was deleted after the request.
            for run_id in jobs:
                self._fail(run_id, traceback.format_exc())
            return False
        for run_id, job in list(jobs.items()):
            # The id names files, and a queue may have been copied from elsewhere.
            if job.config.run_id(digest) != run_id:
                self._fail(run_id, "its id does not belong to its config and these jets: request it again")
                del jobs[run_id]
        started = self.queue.start(jobs.keys() - self._finish_stored(jobs))
        jobs = {run_id: job for run_id, job in jobs.items() if run_id in started}
        if not jobs:
            return False
        name = uuid.uuid4().hex[:12]
        configs = {run_id: job.config.to_dict() for run_id, job in jobs.items()}
        checkpoints = {run_id: state for run_id in jobs if (state := self.checkpoints.read(run_id)) is not None}
        task = self.cluster.submit(name, configs, digest, checkpoints, self.device, bulk=bulk)
        self._stacks[name] = _Stack(plan, jobs, task)
        return True

    def _write_heartbeat(self) -> None:
        if time.monotonic() - self._heartbeat_at > HEARTBEAT_INTERVAL_S:
            self._heartbeat_at = time.monotonic()
            self.queue.set_heartbeat(os.getpid(), self._message or self.checkpoints.problem or self._cluster_problem)
            self.cluster.keep_ready(time.time() - self.queue.visited_at() < VISIT_TIMEOUT_S)
            self.store.compact_if_needed()


def run_engine(
    directory: Path | StoreDirectory,
    snapshot: Path | None,
    cluster: LocalPool | Cluster,
    *,
    device: str = "auto",
    until_idle: bool = False,
) -> None:
    """Serve a store in this process; SIGTERM and SIGINT end the engine after it has saved its state."""
    engine = Engine(directory, snapshot, cluster, device)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: engine.stop())
    engine.serve(until_idle=until_idle)
