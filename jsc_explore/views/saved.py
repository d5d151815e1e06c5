"""Saved views and the way to another screen: names for addresses, the address itself, its QR code."""

from __future__ import annotations

import io
from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode

import segno
import streamlit as st

from jsc_explore.errors import JscError
from jsc_explore.views import admission, resources, url


def draw() -> None:
    """Draw the doors to saved views and to sharing, each a popover."""
    st.divider()
    # What a closed door hides is not made: the code is drawn for those who look at it.
    views = st.popover("Saved views", icon=":material/bookmark:", width="stretch", key="views_door", on_change="rerun")
    if views.open:
        with views:
            _views()
    share = st.popover(
        "Share this view", icon=":material/qr_code_2:", width="stretch", key="share_door", on_change="rerun"
    )
    if share.open:
        with share:
            _share()


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


def _views() -> None:
    views, may_write = resources.saved_views(), not admission.refusal()
    with st.form("save_view", border=False, clear_on_submit=True):
        name = st.text_input("Save what is seen now as", placeholder="batch size at 1e-3", disabled=not may_write)
        # Views are shared by all: who may not train may not change them either.
        if st.form_submit_button("Save", disabled=not may_write, help=admission.refusal() or None):
            _do(lambda: views.save(name, urlencode(url.query(), safe=":~,./")))
    if message := st.session_state.pop("_saved fault", None):
        st.error(message)
    try:
        known = views.all()
    except JscError as error:
        st.error(str(error))
        return
    if not known:
        st.caption("No view is saved yet.")
        return
    for label, query in known.items():
        st.button(label, key=f"open {label}", on_click=_open, args=(query,), type="tertiary", width="stretch")
    if not may_write:
        return
    with st.expander("Rename or delete"):
        chosen = st.selectbox("View", list(known), key="saved view")
        new = st.text_input("New name", key="saved view name")
        left, right = st.columns(2)
        left.button("Rename", disabled=not new.strip(), on_click=_do, args=(lambda: views.rename(chosen, new),))
        right.button("Delete", on_click=_do, args=(lambda: views.delete(chosen),))


def _do(action: Callable[[], None]) -> None:
    try:
        if not admission.refusal():
            action()
    except JscError as error:
        st.session_state["_saved fault"] = str(error)


def _open(query: str) -> None:
    url.take(dict(parse_qsl(query, keep_blank_values=True)))


def _share() -> None:
    text = address()
    st.caption("Whoever opens this address sees the same view.")
    st.code(text, language=None, wrap_lines=True)
    # Streamlit takes drawings out of HTML; as an image they stay.
    st.image(qr_code(text), width=256, alt="QR code of this address")
    if "localhost" in text or "127.0.0.1" in text:
        st.caption("This address works on this machine only; start with `--address 0.0.0.0` to let the room in.")
