"""A view as one page: charts, data and words in a single file that needs no server and no network."""

from jsc_explore.handout.page import handout, read_view, write_handout

__all__ = ["handout", "read_view", "write_handout"]
