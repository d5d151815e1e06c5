"""Downloads: files that are made on a click and stay until the browser has fetched them."""

from __future__ import annotations

import itertools
import logging
import mimetypes
from collections.abc import Callable
from typing import Any

import streamlit as st
from streamlit import runtime

# Generated files that are kept at a time, for all sessions: a browser fetches one within seconds.
KEPT = 64
_numbers = itertools.count()
# A file is made outside of every session, which Streamlit takes for a script without a server.
logging.getLogger("streamlit.runtime.scriptrunner_utils.script_run_context").setLevel(logging.ERROR)


def download_button(label: str, make: Callable[[], bytes], name: str, **options: Any) -> None:
    """Draw a button that makes the file ``name`` on a click and downloads it, also while something trains.

    Streamlit stores a file that was made on a click, and deletes it as soon as any session has drawn something twice:
    with a training under way that is sooner than the browser fetches it. Stored a second time under the same id, but
    outside of every session, it stays. ``make`` runs outside of the page's run.
    """
    mimetype = mimetypes.guess_type(name)[0] or "application/octet-stream"

    def made() -> bytes:
        content = make()
        runtime.get_instance().media_file_mgr.add(
            content, mimetype, f"download {next(_numbers) % KEPT}", name, is_for_static_download=True
        )
        return content

    st.download_button(label, made, name, mime=mimetype, on_click="ignore", **options)
