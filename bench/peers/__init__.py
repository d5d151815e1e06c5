"""The ways to train that are measured against each other, each a class ``Loop(task)`` in a module of its own."""
