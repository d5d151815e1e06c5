"""Jobs: who asked for which run, how far it is, and the engine that trains what is asked for."""

from jsc_explore.jobs.queue.queue import Job, Queue

__all__ = ["Job", "Queue"]
