"""The queue of one store: who requested which run, how far it is, and in which order runs are started."""

from jsc_explore.jobs.queue.fair_share import BULK, INTERACTIVE
from jsc_explore.jobs.queue.queue import ACTIVE, ENDED, EngineState, Job, Queue
from jsc_explore.jobs.queue.schema import Transition

__all__ = ["ACTIVE", "BULK", "ENDED", "INTERACTIVE", "EngineState", "Job", "Queue", "Transition"]
