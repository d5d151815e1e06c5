"""The vmap backend: PyTorch for every network and device, eager or compiled; replicas share steps on a GPU only."""
