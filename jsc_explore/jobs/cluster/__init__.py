"""The cluster: Dask workers on this machine or others, and what is sent to them."""
