"""The peers that ``bench training`` compares: one module each, with a class ``Loop(task)``."""
