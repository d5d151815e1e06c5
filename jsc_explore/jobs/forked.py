"""What the process that workers are forked from imports: torch, Lightning and Dask, once for all of them."""

import gc

# Imports make half a million objects and no garbage: looking for some among them takes a fifth of the time.
gc.disable()
import distributed  # noqa: E402, F401

import jsc_explore.training.train  # noqa: E402, F401

# A collection in a worker would write to every one of them, and so copy the memory that the workers share.
gc.freeze()
gc.enable()
