"""Export: a view as one HTML page that needs no server, charts and tables as files."""

from jsc_explore.export.static_page import export_page, parse_view, write_page

__all__ = ["export_page", "parse_view", "write_page"]
