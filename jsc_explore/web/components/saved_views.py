"""Saved views (named URLs) and sharing: the URL of the page and its QR code."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import parse_qsl, urlencode

import segno
import streamlit as st

from jsc_explore.errors import JscError
from jsc_explore.store.saved_views import SavedViews
from jsc_explore.web.components import permissions
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state import dialogs, services, visitor
from jsc_explore.web.state.url import EXPLORE

_FAULT, _RENAMED = "_saved fault", "_renamed view"


def draw_buttons() -> None:
    """Draw the buttons that open saved views and sharing."""
    dialogs.button("views", "Saved views", ":material/bookmark:", stretch=True)
    dialogs.button("share", "Share this view", ":material/qr_code_2:", stretch=True)


def page_url(query: Mapping[str, str]) -> str:
    """Return the full URL of the open page with this query."""
    base = (st.context.url or "").split("?")[0]
    return f"{base}?{_encoded(query)}" if query else base


def _encoded(query: Mapping[str, str]) -> str:
    return urlencode(query, safe=":~,./")


def qr_code(text: str) -> bytes:
    """Return a QR code as PNG; black on white in every theme, as phones need it."""
    stream = io.BytesIO()
    segno.make(text, error="m", micro=False).save(stream, kind="png", scale=8, border=3)
    return stream.getvalue()


@st.dialog("Saved views", on_dismiss=dialogs.close)
def views() -> None:
    """Draw the dialog that saves the view under a name, and opens, renames or deletes saved ones."""
    saved, may_write = services.saved_views(), not permissions.refusal()
    with (
        st.form("save_view", border=False, clear_on_submit=True),
        st.container(horizontal=True, vertical_alignment="bottom"),
    ):
        name = st.text_input("Save the current view as", placeholder="batch size at 1e-3", disabled=not may_write)
        # All visitors see all views: those who may not train may not save any.
        if st.form_submit_button("Save", disabled=not may_write, help=permissions.refusal() or None):
            _write(lambda: saved.save(name, _encoded(EXPLORE.query), _visitor()))
    if message := st.session_state.pop(_FAULT, None):
        st.error(plain(message))
    try:
        known, own = saved.all(), saved.own(_visitor())
    except JscError as error:
        st.error(plain(error))
        return
    if not known:
        st.caption("No view is saved yet.")
    for label, query in known.items():
        _draw_view(saved, label, query, may_write and label in own)


def _draw_view(saved: SavedViews, label: str, query: str, may_change: bool) -> None:
    """Draw one saved view: its name opens it; while it is being renamed, a text input for the new name."""
    if may_change and st.session_state.get(_RENAMED) == label:
        box = f"name {label}"
        with st.form(f"rename {label}", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
            st.text_input("New name", label, key=box)
            st.form_submit_button("Rename", on_click=_rename, args=(saved, label, box))
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.container(width="stretch"):
            if st.button(plain(label), key=f"open {label}", type="tertiary"):
                EXPLORE.load(dict(parse_qsl(query, keep_blank_values=True)))
                EXPLORE.write()
                dialogs.close()
                st.rerun()
        if may_change:
            begin = partial(st.session_state.__setitem__, _RENAMED, label)
            st.button("Rename", key=f"rename {label} now", type="tertiary", on_click=begin)
            remove = partial(_write, partial(saved.delete, label, _visitor()))
            st.button("Delete", key=f"delete {label}", type="tertiary", on_click=remove)


def _rename(saved: SavedViews, label: str, box: str) -> None:
    del st.session_state[_RENAMED]
    if (new := st.session_state[box]) != label:
        _write(lambda: saved.rename(label, new, _visitor()))


def _visitor() -> list[str] | None:
    return None if visitor.is_owner() else visitor.identities()


def _write(action: Callable[[], None]) -> None:
    try:
        if not permissions.refusal():
            action()
    except JscError as error:
        st.session_state[_FAULT] = str(error)


@st.dialog("Share this view", on_dismiss=dialogs.close)
def share() -> None:
    """Draw the dialog with the URL of the view and its QR code."""
    text = page_url(EXPLORE.query)
    st.caption("Everybody who opens this URL sees the same view.")
    st.code(text, language=None, wrap_lines=True)
    # An image, since Streamlit removes SVG from HTML.
    st.image(qr_code(text), width=256, alt="QR code of this URL")
    if "localhost" in text or "127.0.0.1" in text:
        st.caption("This URL works on this machine only; start with `--address 0.0.0.0` for other machines.")
