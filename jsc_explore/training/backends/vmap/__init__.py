"""The vmap backend: replicas under torch.func.vmap, for every network and device, compiled where it pays."""
