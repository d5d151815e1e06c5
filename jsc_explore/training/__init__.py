"""Training: a stack of replicas of one network, in chunks, under Lightning. Knows neither store nor screen."""
