"""Explore how hyperparameters shape the training of small jet classifiers."""

__version__ = "0.1.0"
