"""Jobs: the queue of requested runs and the engine that trains them."""
