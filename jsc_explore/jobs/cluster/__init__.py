"""The cluster: Dask workers on this machine or on others, and the code that runs on them."""
