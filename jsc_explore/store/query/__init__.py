"""Queries: SQL over the runs of a store, as tables that the view model reads."""
