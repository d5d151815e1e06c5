"""Jets to train on: three sources (openml, cernbox, simulated), their cache, and how they are split.

Importing this room is light: neither scikit-learn, h5py nor the downloader is loaded before it is needed.
"""

from jsc_explore.data.access import cache_dir, digest, fetch, is_available, load, locate, names, recipe
from jsc_explore.data.jets import CLASSES, FEATURES, Jets
from jsc_explore.data.sources import SOURCES, Source
from jsc_explore.data.splits import PROTOCOLS, Split, part_sizes, split

__all__ = [
    "CLASSES",
    "FEATURES",
    "PROTOCOLS",
    "SOURCES",
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
    "split",
]
