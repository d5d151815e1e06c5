"""What this visitor may ask for, and the one place of the page that asks: rights, login, confirmation."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from functools import lru_cache

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from jsc_explore.config import RunConfig
from jsc_explore.errors import JscError, UnconfirmedError
from jsc_explore.jobs.auth import Access, LoginThrottle
from jsc_explore.jobs.submit import Requester, submit
from jsc_explore.web.state import services

_LONG, _PENDING = "_to be confirmed", "_untold"
_THROTTLE = LoginThrottle()
# Sessions that gave the password. Here and not in the session's state: no message of a browser can write to it.
_UNLOCKED: set[str] = set()
_SALT = secrets.token_bytes(16)


def refusal() -> str:
    """Say in one line why this visitor may not train; empty if they may."""
    if reason := services.store().read_only:
        return f"This store can only be read here ({reason}): nothing can be trained."
    return Access.from_environment().refusal(unlocked=session() in _UNLOCKED, email=_email())


def requester() -> Requester:
    """Return this visitor as the queue knows them: a name that cannot be traced back, limits, and their right."""
    name = hashlib.sha256(_SALT + session().encode()).hexdigest()[:12]
    return Requester(f"page {name}", Access.from_environment().limits, refusal())


def train(runs: Sequence[RunConfig], confirmed: bool = False) -> None:
    """Ask for runs; what may not be asked for, or has to be confirmed, is said at the page's next drawing."""
    st.session_state.pop(_LONG, None)
    if not runs:
        return
    try:
        submit(services.store(), services.queue(), runs, requester=requester(), confirmed=confirmed)
    except UnconfirmedError as error:
        st.session_state[_LONG] = (list(runs), error)
    except JscError as error:
        st.session_state["flash"] = str(error)
    st.session_state[_PENDING] = True


def cancel(run_ids: Sequence[str]) -> None:
    """Cancel runs, if this visitor may train."""
    try:
        if not refusal():
            services.queue().cancel(run_ids)
    except JscError as error:
        st.session_state["flash"] = str(error)


def has_pending_notice() -> bool:
    """Whether the last request came to something that ``told`` has not drawn yet; it may stand in another fragment."""
    return bool(st.session_state.get(_PENDING))


def draw_pending_notice() -> None:
    """Draw what the last request came to: an error, or how long it takes and the button that wants it all the same."""
    st.session_state[_PENDING] = False
    if message := st.session_state.pop("flash", None):
        st.error(message)
    if _LONG not in st.session_state:
        return
    runs, error = st.session_state[_LONG]
    with st.container(horizontal=True, vertical_alignment="center", key="long_request"):
        st.markdown(
            f":material/hourglass_top: {error.runs:,} run{'s' if error.runs != 1 else ''} would take "
            f"**{error.duration}** on this machine, and others wait meanwhile.",
            width="stretch",
        )
        st.button(
            f"Train for {error.duration}", key="long yes", type="primary", on_click=train, args=(runs, True),
        )  # fmt: skip
        st.button("Cancel", key="long no", on_click=_leave)


def door() -> None:
    """Draw, where training is not for everybody, who may and how to get in."""
    access, why = Access.from_environment(), refusal()
    if access.read_only or services.store().read_only is not None:
        st.caption(f":material/visibility: {why}")
        return
    if not access.has_password and not access.allowed:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="door"):
        st.caption(f":material/lock: {why}" if why else ":material/lock_open: You may train here.", width="content")
        if why and access.has_password:
            with st.popover("Enter password", type="tertiary"):
                st.text_input("Launch password", type="password", key="launch password", on_change=_guess)
                if fault := st.session_state.get("_wrong"):
                    st.error(fault)
        if access.allowed:
            _login()


def _login() -> None:
    if not _can_log_in():
        st.caption("No login is set up: `secrets.toml` needs a section `[auth]`, see docs/public.md.")
    elif _email():
        st.button("Log out", key="log out", type="tertiary", on_click=st.logout)
    else:
        st.button("Log in", key="log in", type="tertiary", on_click=st.login)


def _guess() -> None:
    guess = st.session_state["launch password"]
    # A password stays in no session: what was typed is taken out again at once.
    st.session_state["launch password"] = ""
    address: object = st.context.ip_address  # None for this very machine
    try:
        fault = _THROTTLE.attempt(Access.from_environment(), guess, address if isinstance(address, str) else "")
    except JscError as error:
        fault = str(error)
    st.session_state["_wrong"] = fault
    if not fault:
        _UNLOCKED.add(session())


def _leave() -> None:
    st.session_state.pop(_LONG, None)


def session() -> str:
    """Return the name of this session within the server; a secret between it and its browser."""
    context = get_script_run_ctx()
    return context.session_id if context is not None else ""


def _email() -> str | None:
    if not st.user.get("is_logged_in") or st.user.get("email_verified") is False:
        return None
    email = st.user.get("email")
    return email if isinstance(email, str) else None


@lru_cache(maxsize=1)
def _can_log_in() -> bool:
    try:
        return "auth" in st.secrets
    except FileNotFoundError:
        return False
