"""The open dialog of a page. It is session state, so that it stays open when the page is drawn again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import streamlit as st

_OPEN = "_open dialog"
# A button that is disabled while its file is made loses the focus, and Escape, which the dialog listens for, with it.
_KEEP_FOCUS = """<script>
if (!window.keepsDialogFocus) {
  window.keepsDialogFocus = true;
  document.addEventListener("click", (event) => {
    const buttons = () => [...document.querySelectorAll("[role=dialog] button")];
    const place = buttons().indexOf(event.target.closest("button"));
    let enabledFor = 0;
    const timer = place >= 0 && setInterval(() => {
      // By its place: a drawing may put another element there, and a second one take the focus again.
      const button = buttons()[place], active = document.activeElement;
      // However long its file takes: only the time in which the button could be used counts.
      enabledFor = button?.disabled ? 0 : enabledFor + 1;
      // Lost is the focus that lies around the button, on the dialog or the page; elsewhere somebody put it.
      if (button && enabledFor && active !== button && active.contains(button)) button.focus();
      // A drawing may take the button away for a moment.
      if (enabledFor > 100) clearInterval(timer);
    }, 50);
  });
}
</script>"""


def open_dialog(name: str) -> None:
    """Open a dialog of the page in its next run."""
    st.session_state[_OPEN] = name


def close() -> None:
    """Close the dialog; also the callback of its dismissal."""
    st.session_state.pop(_OPEN, None)


def is_open() -> bool:
    """Whether a dialog is open in this session."""
    return _OPEN in st.session_state


def button(name: str, label: str, icon: str, help_text: str | None = None, *, stretch: bool = False) -> None:
    """Draw a button that opens a dialog; it works inside a fragment, too."""
    if st.button(label, icon=icon, help=help_text, key=f"{name} dialog", width="stretch" if stretch else "content"):
        open_dialog(name)
        st.rerun()


def draw(dialogs: Mapping[str, Callable[[], None]]) -> None:
    """Draw the open dialog, if any; ``dialogs`` maps the names of the page's dialogs to functions that draw them."""
    name = str(st.session_state.get(_OPEN, ""))
    if name in dialogs:
        st.html(_KEEP_FOCUS, unsafe_allow_javascript=True)
        dialogs[name]()
    else:
        # It belongs to another page, which was left through the navigation.
        close()
