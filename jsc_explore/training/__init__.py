"""Training of stacks, replicas of one network, under Lightning; independent of store and web."""
