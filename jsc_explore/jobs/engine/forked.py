"""What the process that workers are forked from holds for all: torch, Lightning, Dask, and the first jets."""

import gc

# Imports make half a million objects and no garbage: looking for some among them takes a fifth of the time.
gc.disable()
import distributed  # noqa: E402, F401

import jsc_explore.training.trainer  # noqa: E402, F401
from jsc_explore.jobs.cluster import dataset_transfer  # noqa: E402

dataset_transfer.preload()

# A collection in a worker would write to every one of them, and so copy the memory that the workers share.
gc.freeze()
gc.enable()
