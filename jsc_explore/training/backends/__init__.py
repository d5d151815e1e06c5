"""Backends: engines that take the optimizer steps of many replicas; one interface, chosen by measured cost."""
