"""Backends: implementations of the optimizer steps of many replicas, with one interface."""
