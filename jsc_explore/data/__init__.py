"""Jets to train on: sources (openml, cernbox, simulated, user samples), their cache, and their split.

Importing this package is fast: scikit-learn, h5py and the downloader are imported only when needed.
"""

from jsc_explore.data.datasets import digest, fetch, is_available, load, locate, names, recipe, size
from jsc_explore.data.jets import CLASSES, FEATURES, Jets
from jsc_explore.data.sources import SOURCES, Source
from jsc_explore.data.splits import VALIDATIONS, Split, part_sizes, split
from jsc_explore.paths import cache_dir

__all__ = [
    "CLASSES",
    "FEATURES",
    "SOURCES",
    "VALIDATIONS",
    "Jets",
    "Source",
    "Split",
    "cache_dir",
    "digest",
    "fetch",
    "is_available",
    "load",
    "locate",
    "names",
    "part_sizes",
    "recipe",
    "size",
    "split",
]
