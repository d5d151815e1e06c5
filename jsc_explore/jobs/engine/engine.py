"""The engine: takes requests, packs them into stacks, trains them on Dask, stores what is finished. One per store."""

from __future__ import annotations

import logging
import os
import queue as queues
import signal
import threading
import time
import traceback
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from jsc_explore import data
from jsc_explore.errors import JscError, StoreError
from jsc_explore.jobs.calibration import IdleCalibrator
from jsc_explore.jobs.cluster.client import Cluster
from jsc_explore.jobs.engine.checkpoints import Checkpoints
from jsc_explore.jobs.engine.crash_tracker import MAX_LOST, CrashTracker
from jsc_explore.jobs.engine.disk_reserve import DiskReserve
from jsc_explore.jobs.engine.gpu_memory import gpu_bytes
from jsc_explore.jobs.engine.pending_results import PendingResults
from jsc_explore.jobs.engine.preload import first_wanted
from jsc_explore.jobs.packing import StackPlan, pack
from jsc_explore.jobs.queue import BULK, INTERACTIVE, Job, Queue
from jsc_explore.results import Point
from jsc_explore.store import Store

log = logging.getLogger("jsc_explore.engine")
# How long a request may wait unseen, and how often live points reach the screen's database.
TICK_S = 0.05
BEAT_S = 1.0
# A full disk is asked again this often.
RETRY_S = 1.0
# How long an engine may take to end its workers.
CLOSING_S = 30.0


@dataclass
class _Stack:
    """A stack under way: its runs by id, its task on the cluster, the runs it was told to cancel."""

    jobs: dict[str, Job]
    task: Any
    told: set[str] = field(default_factory=set)


class Engine:
    """Serves the queue of one store until it is stopped.

    Raises StoreError if another engine serves the store. A finished run is stored before its request is marked done;
    if it cannot be stored (disk full) it waits in memory, the state says so, and it is tried again every second.
    """

    def __init__(self, directory: Path, snapshot: Path | None, cluster: Cluster, device: str = "auto") -> None:
        self.directory, self.cluster, self.device = Path(directory), cluster, device
        self.reserve = DiskReserve(self.directory / "reserve")
        if self.directory.exists():
            # One that died may have left the disk full: there must be room to open the databases.
            self.reserve.give_up_if_full()
        self.store = Store(self.directory, snapshot)
        self.queue = Queue(self.directory)
        self._lock = FileLock(self.directory / "engine.lock", thread_local=False)
        self._take_lock()
        self.queue.set_heartbeat(os.getpid(), "starting")
        self.checkpoints = Checkpoints(self.directory / "checkpoints")
        self._events: queues.SimpleQueue[dict[str, Any]] = queues.SimpleQueue()
        self._stacks: dict[str, _Stack] = {}
        self._unsaved = PendingResults()
        self._points: list[tuple[str, Point]] = []
        self._progress: dict[str, tuple[int, int]] = {}
        # For runs whose worker was lost: the furthest step at that time, and how often it got no further.
        self._losses = CrashTracker()
        self._steps: dict[str, int] = {}
        self._stop = threading.Event()
        self._message = self._cluster_state = ""
        self._beaten = self._saved = 0.0

    def stop(self) -> None:
        """Ask ``serve`` to end; what is under way goes back to the queue."""
        self._stop.set()

    def serve(self, *, until_idle: bool = False, parent: int | None = None) -> None:
        """Work until stopped; ``until_idle`` ends when nothing is left, ``parent`` when that process is gone too."""
        try:
            self._recover()
            self.cluster.start(self._events.put)
            if not until_idle:
                self._warm()
            calibrator = IdleCalibrator(self.directory)
            while not self._stop.is_set():
                busy = self._tick()
                calibrator.update(busy)
                orphan = parent is not None and os.getppid() != parent
                if not busy and (until_idle or orphan):
                    break
                self._stop.wait(TICK_S)
        finally:
            self._shut_down()

    def _warm(self) -> None:
        """Let the workers load what somebody waits for already, else what is asked for most."""
        wanted = first_wanted(self.directory)
        with suppress(JscError):  # of a run whose jets are not here, the run itself will tell
            self.cluster.warm(wanted.dataset, wanted.validation, data.digest(wanted.dataset), self.device)

    def _tick(self) -> bool:
        """Do what is due; return whether anything is waiting or under way."""
        try:
            self._hear()
            self._check_room()
            self._advance()
            self._look()
            self._collect()
            self._save()
            self._cancel()
            self._launch()
            self._beat()
            return bool(self._stacks or self._unsaved or self.queue.has_waiting())
        except JscError as error:
            # A full disk or a locked database passes; what was not written is still in memory.
            if str(error) != self._message:
                log.error("%s", error)
            self._message = str(error)
            self.reserve.give_up_if_full()
            with suppress(JscError):
                self._beat()
            self._stop.wait(RETRY_S)
            return True

    # ---- beginning and end

    def _take_lock(self) -> None:
        deadline = time.monotonic() + CLOSING_S
        while True:
            try:
                self._lock.acquire(timeout=0)
                return
            except Timeout as error:
                state = self.queue.engine()
                # One that holds the lock and says nothing is closing: its place is free in a moment.
                if (state is not None and state.is_alive) or time.monotonic() > deadline:
                    self.queue.close()
                    self.store.close()
                    raise StoreError(
                        f"store {self.directory}: is served by another engine already; use that one"
                    ) from error
                time.sleep(TICK_S)
            except (OSError, NotImplementedError) as error:
                self.queue.close()
                self.store.close()
                raise StoreError(
                    f"store {self.directory}: its file system has no locks ({error}); choose a local disk with --store"
                ) from error

    def _recover(self) -> None:
        """Take over from an engine that died: sweep half files, finish what is stored, queue the rest again."""
        for line in self.store.recover().lines():
            log.warning("%s", line)
        running = [job.run_id for job in self.queue.jobs(("running",))]
        self._finish_stored(running)
        self.queue.requeue(running, "its engine ended")
        self.checkpoints.recover({job.run_id for job in self.queue.jobs(("queued",))})

    def _finish_stored(self, run_ids: Iterable[str]) -> set[str]:
        """End the requests for runs that are stored already; return them."""
        rows = self.store.runs({"run_id": list(run_ids)}, ["run_id", "status"]).to_pylist()
        for row in rows:
            self.queue.finish(row["run_id"], row["status"])
        return {row["run_id"] for row in rows}

    def _shut_down(self) -> None:
        try:
            self._hear()
            self.reserve.give_up()
            self._advance()
            self._save(force=True)
            under_way = [run_id for stack in self._stacks.values() for run_id in stack.jobs]
            self.queue.requeue([*under_way, *self._unsaved], "the engine was stopped")
            self.queue.clear_heartbeat()
        except JscError as error:
            log.error("%s", error)
        try:
            self.cluster.close()
        finally:
            self.checkpoints.close()
            self.queue.close()
            self.store.close()
            self._lock.release()

    # ---- what comes back

    def _check_room(self) -> None:
        if not self.reserve.hold():
            raise StoreError(
                f"store {self.directory}: its disk is full; make room: what is trained waits in memory, nothing is lost"
            )

    def _hear(self) -> None:
        """Take in what the workers sent."""
        while True:
            try:
                event = self._events.get_nowait()
            except queues.Empty:
                break
            stack = self._stacks.get(event["stack"])
            if stack is None:
                continue
            if "outcome" in event:
                self._take_outcome(stack, event["finished"], event["outcome"])
                continue
            if "checkpoints" in event:
                for run_id in stack.jobs.keys() & event["checkpoints"].keys():
                    self.checkpoints.keep(run_id, event["checkpoints"][run_id])
                continue
            self._points += [(run_id, point) for run_id, point in event["points"] if run_id in stack.jobs]
            self._progress |= {run_id: (event["step"], total) for run_id, total in event["totals"].items()}
            self._steps |= dict.fromkeys(event["totals"], event["step"])
            for run_id in stack.told & set(stack.jobs) - set(event["totals"]):
                self._drop(stack, run_id)

    def _advance(self) -> None:
        """Enter points and progress; what cannot be written now stays and is tried again."""
        self.queue.record_progress(self._points, self._progress)
        self._points, self._progress = [], {}

    def _drop(self, stack: _Stack, run_id: str) -> None:
        """Take note that a cancelled run has left its stack; asked for again meanwhile, it begins anew."""
        self.queue.requeue([run_id])
        del stack.jobs[run_id]
        self._forget(run_id)

    def _fail(self, run_id: str, error: str) -> None:
        self.queue.finish(run_id, "failed", error)
        self._forget(run_id)

    def _forget(self, run_id: str) -> None:
        self.checkpoints.drop(run_id)
        self._losses.forget(run_id)
        self._steps.pop(run_id, None)

    def _take_outcome(self, stack: _Stack, run_id: str, values: dict[str, Any]) -> None:
        job = stack.jobs.get(run_id)
        if job is None:
            return
        try:
            self._unsaved.take(job, values)
        except (JscError, TypeError):  # The data have gone, or a worker of another version answered.
            self._fail(run_id, traceback.format_exc())
        del stack.jobs[run_id]

    def _collect(self) -> None:
        for name, stack in list(self._stacks.items()):
            if not self.cluster.done(stack.task):
                continue
            result = self.cluster.result(stack.task)
            if "lost" in result:
                self._put_back(stack, result["lost"])
            for run_id, outcome in result["outcomes"].items():
                self._take_outcome(stack, run_id, outcome)
            error = result.get("error") or "the worker ended without an outcome"
            for run_id in list(stack.jobs):
                if run_id in stack.told:
                    self._drop(stack, run_id)
                else:
                    self._fail(run_id, error)
                    del stack.jobs[run_id]
            # Last: if the queue could not be written above, the stack is looked at again.
            del self._stacks[name]

    def _put_back(self, stack: _Stack, reason: str) -> None:
        """Queue the runs of a lost stack again; they go on from their checkpoints."""
        wanted = [run_id for run_id in stack.jobs if run_id not in stack.told]
        log.warning("%s; %d runs are queued again", reason, len(wanted))
        for run_id in wanted:
            if self._losses.add(run_id, self._steps.get(run_id, 0), alone=len(wanted) == 1):
                self._fail(run_id, f"given up: {MAX_LOST} times its worker was lost at the same place, last: {reason}")
            else:
                self.queue.requeue([run_id], reason)
            del stack.jobs[run_id]

    def _look(self) -> None:
        state = self.cluster.look()
        if state != self._cluster_state:
            log.warning("%s", state or "the cluster is well")
            self._cluster_state, self._beaten = state, 0.0

    def _save(self, force: bool = False) -> None:
        if self._message and not force and time.monotonic() - self._saved < RETRY_S:
            return
        self._saved = time.monotonic()
        try:
            for run_id, status, error in self._unsaved.store(self.store):
                self.queue.finish(run_id, status, error)
                self._forget(run_id)
        except StoreError as error:
            self._message = f"{error}; {len(self._unsaved)} finished runs wait in memory"
            log.error("%s", self._message)
            return
        self._message = ""

    # ---- what goes out

    def _cancel(self) -> None:
        if not self._stacks:
            return
        wanted = self.queue.cancelling()
        for stack in self._stacks.values():
            if news := (wanted & set(stack.jobs)) - stack.told:
                stack.told |= news
                self.cluster.cancel(stack.task, sorted(news))

    def _launch(self) -> None:
        free, free_bulk = self.cluster.free(bulk=False), self.cluster.free(bulk=True)
        # Read only what could go out now: a long line of bulk work is not looked through twenty times a second.
        waiting = self.queue.waiting(BULK if free_bulk > 0 else INTERACTIVE) if free > 0 else []
        if not waiting:
            return
        resumable = {job.run_id: self.checkpoints.epoch(job.run_id) for job in waiting}
        for plan in pack(waiting, free, resumable, self._gpu_bytes(), self._losses.suspects()):
            if self.cluster.free(bulk=plan.priority == BULK):
                self._submit(plan)

    def _gpu_bytes(self) -> int | None:
        """Return the memory of a GPU for each stack; None where workers have none or, far away, one not known here."""
        memory = gpu_bytes(self.device) if self.cluster.scheduler is None else None
        return memory and memory // ((self.cluster.workers or os.cpu_count() or 1) + self.cluster.keep_free)

    def _submit(self, plan: StackPlan) -> None:
        jobs = {job.run_id: job for job in plan.jobs}
        try:
            digest = data.digest(plan.jobs[0].config.dataset)
        except JscError:  # Fetched when it was asked for, and gone since.
            for run_id in jobs:
                self._fail(run_id, traceback.format_exc())
            return
        started = self.queue.start(jobs.keys() - self._finish_stored(jobs))
        jobs = {run_id: job for run_id, job in jobs.items() if run_id in started}
        if not jobs:
            return
        name = uuid.uuid4().hex[:12]
        configs = {run_id: job.config.to_dict() for run_id, job in jobs.items()}
        saved = {run_id: state for run_id in jobs if (state := self.checkpoints.read(run_id)) is not None}
        task = self.cluster.submit(name, configs, digest, saved, self.device, bulk=plan.priority == BULK)
        self._stacks[name] = _Stack(jobs, task)

    def _beat(self) -> None:
        if time.monotonic() - self._beaten > BEAT_S:
            self._beaten = time.monotonic()
            self.queue.set_heartbeat(os.getpid(), self._message or self.checkpoints.problem or self._cluster_state)
            self.store.compact_if_needed()


def run_engine(
    directory: Path,
    snapshot: Path | None,
    cluster: Cluster,
    *,
    device: str = "auto",
    until_idle: bool = False,
    parent: int | None = None,
) -> None:
    """Serve a store in this process; SIGTERM and SIGINT end it in order."""
    engine = Engine(directory, snapshot, cluster, device)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: engine.stop())
    engine.serve(until_idle=until_idle, parent=parent)
