"""The engine: one process per store that takes requests from the queue, trains them and writes the results."""
