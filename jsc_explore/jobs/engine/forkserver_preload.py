"""Fork server preload: what the process that workers are forked from imports: torch, Lightning, Dask, and its jets."""

import gc

# Imports create half a million objects and no garbage; collecting meanwhile takes a fifth of the time.
gc.disable()
import distributed  # noqa: E402, F401

import jsc_explore.training.trainer  # noqa: E402, F401
from jsc_explore.jobs.cluster import dataset_transfer  # noqa: E402

dataset_transfer.preload()

# A collection in a worker would write to all of these objects and so copy the memory that the workers share.
gc.freeze()
gc.enable()
