"""Simulate jets: Pythia events, a parametrised detector, anti-kT jets, 16 features."""

from jsc_explore.data.jets import CLASSES, FEATURES
from jsc_explore.data.simulation.blocks import Block, is_complete
from jsc_explore.data.simulation.events import RECIPE_VERSION
from jsc_explore.data.simulation.production import plan, simulate

__all__ = ["CLASSES", "FEATURES", "RECIPE_VERSION", "Block", "is_complete", "plan", "simulate"]
