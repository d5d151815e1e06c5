"""Which dialog is open over the page: it stays open until it is dismissed, whatever draws the page meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import streamlit as st

_OPEN = "_open dialog"
# A button that is disabled while its file is made loses the focus, and Escape, which the dialog listens for, with it.
_KEEP_FOCUS = """<script>
if (!window.keepsDialogFocus) {
  window.keepsDialogFocus = true;
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[role=dialog] button");
    let looks = 0;
    const timer = button && setInterval(() => {
      if (++looks > 100 || !button.isConnected) return clearInterval(timer);
      if (document.activeElement !== document.body || button.disabled) return;
      button.focus();
      clearInterval(timer);
    }, 50);
  });
}
</script>"""


def open_dialog(name: str) -> None:
    """Open a dialog of the page in its next run."""
    st.session_state[_OPEN] = name


def close() -> None:
    """Close the dialog; the callback of its dismissal, too."""
    st.session_state.pop(_OPEN, None)


def is_open() -> bool:
    """Whether a dialog is open in this session."""
    return _OPEN in st.session_state


def button(name: str, label: str, icon: str, help_text: str | None = None, *, stretch: bool = False) -> None:
    """Draw a button that opens a dialog, also from within a fragment."""
    if st.button(label, icon=icon, help=help_text, key=f"{name} dialog", width="stretch" if stretch else "content"):
        open_dialog(name)
        st.rerun()


def draw(dialogs: Mapping[str, Callable[[], None]]) -> None:
    """Draw the open dialog of a page, if any, given as functions by name."""
    name = str(st.session_state.get(_OPEN, ""))
    if name in dialogs:
        st.html(_KEEP_FOCUS, unsafe_allow_javascript=True)
        dialogs[name]()
    else:
        # That of another page, left through the navigation.
        close()
