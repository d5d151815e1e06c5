"""Permissions of this visitor: login, submitting and cancelling runs (nothing else in the app does), and notices."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import streamlit as st

from jsc_explore.config import RunConfig
from jsc_explore.errors import JscError, UnconfirmedError
from jsc_explore.jobs.auth import Access, LoginThrottle
from jsc_explore.jobs.queue import Job
from jsc_explore.jobs.submit import Requester, submit
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state import services, visitor

_NOTICE, _LOGIN_FAULT = "notice", "_login fault"
_THROTTLE = LoginThrottle()
# Sessions that gave the password. Not in the session's state, which messages of a browser can write to.
_UNLOCKED: set[str] = set()
_SALT = secrets.token_bytes(16)


@dataclass(frozen=True)
class Notice:
    """The result of the last request: an error, or runs that take so long that they have to be confirmed."""

    text: str
    runs: tuple[RunConfig, ...] = ()
    duration: str = ""


def refusal() -> str:
    """Return the reason in one line why this visitor may not train; empty if they may."""
    if reason := services.store().read_only:
        return f"The store is read-only here ({reason}): nothing can be trained."
    return Access.from_environment().refusal(unlocked=visitor.session() in _UNLOCKED, email=visitor.email())


def requester() -> Requester:
    """Return this visitor as a requester for the queue: an anonymous name and address, limits, and the refusal if any.

    The person who runs the app has no address: its limits are for visitors.
    """
    address = "" if visitor.is_owner() else _anonymous(visitor.client_address())
    return Requester(_names()[0], Access.from_environment().limits, refusal(), address)


def _names() -> list[str]:
    """Return the names that this visitor has in the queue: a request is made under the first, and all may cancel it."""
    return [f"page {_anonymous(identity)}" for identity in visitor.identities()]


def name_of(job: Job) -> str:
    """Return who requested a job first, as the queue records it: you, command line, or session and address."""
    if job.session in _names():
        return "you"
    kind, _, name = job.session.partition(" ")
    return f"{kind} {name[:4]}{f' at address {job.address[:4]}' if job.address else ''}"


def train(runs: Sequence[RunConfig], confirmed: bool = False) -> None:
    """Submit runs; leave a notice if they are refused or have to be confirmed first."""
    st.session_state.pop(_NOTICE, None)
    if not runs:
        return
    try:
        submit(services.store(), services.queue(), runs, requester=requester(), confirmed=confirmed)
    except UnconfirmedError as error:
        runs_text = f"{error.runs:,} run{'s' if error.runs != 1 else ''}"
        text = f"{runs_text} would take {error.duration} on this machine."
        st.session_state[_NOTICE] = Notice(text, tuple(runs), error.duration)
    except JscError as error:
        st.session_state[_NOTICE] = Notice(str(error))
    services.live().invalidate()


def cancel_refusal(jobs: Sequence[Job]) -> str:
    """Return the reason, in one line, why this visitor may cancel none of these jobs; empty if one may be cancelled."""
    if visitor.is_owner() or any(job.requesters.intersection(_names()) for job in jobs):
        return refusal()
    return "Only the person who requested a training, or who runs the app, may cancel it."


def cancel(run_ids: Sequence[str]) -> None:
    """Cancel runs; runs that another visitor requested, too, go on for them unless this visitor runs the app."""
    try:
        if not refusal():
            for name in [None] if visitor.is_owner() else _names():
                services.queue().cancel(run_ids, name)
    except JscError as error:
        st.session_state[_NOTICE] = Notice(str(error))
    services.live().invalidate()


def draw_notice() -> None:
    """Draw the notice about the last request, until the next request or until it is dismissed."""
    notice: Notice | None = st.session_state.get(_NOTICE)
    if notice is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="notice"):
        if notice.runs:
            st.markdown(f":material/hourglass_top: {plain(notice.text)}", width="stretch")
            st.button(
                f"Train for {notice.duration}", key="confirm", type="primary", on_click=train, args=(notice.runs, True)
            )
        else:
            st.error(plain(notice.text))
        st.button("Cancel" if notice.runs else "Dismiss", key="dismiss", on_click=_dismiss)


def draw_status() -> None:
    """Draw the permissions of this visitor and how to get more, unless everybody may train."""
    access, why = Access.from_environment(), refusal()
    if access.read_only or services.store().read_only is not None:
        st.caption(f":material/visibility: {plain(why)}")
        return
    if not access.has_password and not access.allowed:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="permissions"):
        st.caption(
            f":material/lock: {plain(why)}" if why else ":material/lock_open: You may train here.", width="content"
        )
        if why and access.has_password:
            with st.popover("Enter password", type="tertiary"):
                st.text_input("Launch password", type="password", key="launch password", on_change=_check_password)
                if fault := st.session_state.get(_LOGIN_FAULT):
                    st.error(plain(fault))
        if access.allowed:
            _login()


def _login() -> None:
    if not _can_log_in():
        st.caption("Login is not set up: `secrets.toml` needs a section `[auth]`, see docs/public.md.")
    elif visitor.email():
        st.button("Log out", key="log out", type="tertiary", on_click=st.logout)
    else:
        st.button("Log in", key="log in", type="tertiary", on_click=st.login)


def _check_password() -> None:
    password = st.session_state["launch password"]
    # Do not keep the password in the session.
    st.session_state["launch password"] = ""
    try:
        fault = _THROTTLE.attempt(
            Access.from_environment(), password, visitor.identities()[-1], visitor.client_address()
        )
    except JscError as error:
        fault = str(error)
    st.session_state[_LOGIN_FAULT] = fault
    if not fault:
        _UNLOCKED.add(visitor.session())


def _anonymous(name: str) -> str:
    return hashlib.sha256(_SALT + name.encode()).hexdigest()[:12]


def _dismiss() -> None:
    st.session_state.pop(_NOTICE, None)


@lru_cache(maxsize=1)
def _can_log_in() -> bool:
    try:
        return "auth" in st.secrets
    except FileNotFoundError:
        return False
