"""What all sessions of one server share: the store, the queue and the engine's supervisor."""

from __future__ import annotations

import atexit

import streamlit as st

from jsc_explore import paths
from jsc_explore.jobs import Queue
from jsc_explore.jobs.supervise import Supervisor
from jsc_explore.store import Store
from jsc_explore.store.imported import Imported
from jsc_explore.store.saved import SavedViews


@st.cache_resource(show_spinner=False)
def store() -> Store:
    """Return the one store of this server."""
    return Store(paths.default_store(), paths.snapshot())


@st.cache_resource(show_spinner=False)
def queue() -> Queue:
    """Return the one queue of this server."""
    return Queue(paths.default_store())


@st.cache_resource(show_spinner=False)
def imported() -> Imported:
    """Return the imported runs of this server's store."""
    return Imported(paths.default_store())


def saved_views() -> SavedViews:
    """Return the saved views of this server's store."""
    return SavedViews(paths.default_store())


@st.cache_resource(show_spinner=False)
def supervisor() -> Supervisor:
    """Return the supervisor that keeps an engine on the store while this server runs."""
    keeper = Supervisor(paths.default_store(), paths.snapshot())
    keeper.start()
    atexit.register(keeper.stop)
    return keeper
