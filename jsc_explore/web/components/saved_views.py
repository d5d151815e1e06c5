"""Saved views and the way to another screen: names for addresses, the address itself, its QR code."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qsl, urlencode

import segno
import streamlit as st

from jsc_explore.errors import JscError
from jsc_explore.store.saved_views import SavedViews
from jsc_explore.web.components import permissions
from jsc_explore.web.state import services, url

_FAULT, _RENAMED = "_saved fault", "_renamed view"


def draw(open_door: Callable[[str], None]) -> None:
    """Draw the doors to saved views and to sharing; ``open_door`` is told which, by name, and the page opens it."""
    for name, label, icon in (
        ("views", "Saved views", ":material/bookmark:"),
        ("share", "Share this view", ":material/qr_code_2:"),
    ):
        st.button(label, icon=icon, width="stretch", key=f"{name}_door", on_click=open_door, args=(name,))


def address() -> str:
    """Return the whole address of what is seen now."""
    base = (st.context.url or "").split("?")[0]
    query = urlencode(url.query(), safe=":~,./")
    return f"{base}?{query}" if query else base


def qr_code(text: str) -> bytes:
    """Return a QR code as PNG, black on white whatever the theme: phones read it so."""
    stream = io.BytesIO()
    segno.make(text, error="m", micro=False).save(stream, kind="png", scale=8, border=3)
    return stream.getvalue()


@st.dialog("Saved views", on_dismiss="rerun")
def views() -> None:
    """Save what is seen, and open, rename or delete what was saved."""
    kept, may_write = services.saved_views(), not permissions.refusal()
    with (
        st.form("save_view", border=False, clear_on_submit=True),
        st.container(horizontal=True, vertical_alignment="bottom"),
    ):
        name = st.text_input("Save what is seen now as", placeholder="batch size at 1e-3", disabled=not may_write)
        # Views are shared by all: who may not train may not change them either.
        if st.form_submit_button("Save", disabled=not may_write, help=permissions.refusal() or None):
            _do(lambda: kept.save(name, urlencode(url.query(), safe=":~,./")))
    if message := st.session_state.pop(_FAULT, None):
        st.error(message)
    try:
        known = kept.all()
    except JscError as error:
        st.error(str(error))
        return
    if not known:
        st.caption("No view is saved yet.")
    for label, query in known.items():
        _row(kept, label, query, may_write)


def _row(kept: SavedViews, label: str, query: str, may_write: bool) -> None:
    """Draw one saved view: its name opens it; while it is being renamed, a box for the new name stands instead."""
    if may_write and st.session_state.get(_RENAMED) == label:
        box = f"name {label}"
        with st.form(f"rename {label}", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
            st.text_input("New name", label, key=box)
            st.form_submit_button("Rename", on_click=_rename, args=(kept, label, box))
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.container(width="stretch"):
            if st.button(label, key=f"open {label}", type="tertiary"):
                url.go(dict(parse_qsl(query, keep_blank_values=True)))
                st.rerun()
        if may_write:
            begin = partial(st.session_state.__setitem__, _RENAMED, label)
            st.button("Rename", key=f"rename {label} now", type="tertiary", on_click=begin)
            remove = partial(_do, partial(kept.delete, label))
            st.button("Delete", key=f"delete {label}", type="tertiary", on_click=remove)


def _rename(kept: SavedViews, label: str, box: str) -> None:
    del st.session_state[_RENAMED]
    if (new := st.session_state[box]) != label:
        _do(lambda: kept.rename(label, new))


def _do(action: Callable[[], None]) -> None:
    try:
        if not permissions.refusal():
            action()
    except JscError as error:
        st.session_state[_FAULT] = str(error)


@st.dialog("Share this view", on_dismiss="rerun")
def share() -> None:
    """Show the address of what is seen, and its QR code for the room."""
    text = address()
    st.caption("Whoever opens this address sees the same view.")
    st.code(text, language=None, wrap_lines=True)
    # Streamlit takes drawings out of HTML; as an image they stay.
    st.image(qr_code(text), width=256, alt="QR code of this address")
    if "localhost" in text or "127.0.0.1" in text:
        st.caption("This address works on this machine only; start with `--address 0.0.0.0` to let the room in.")
