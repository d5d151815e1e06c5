"""The state of each page, kept in the session and mirrored in the URL, so that a link shows the same page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import streamlit as st

from jsc_explore.view_model import url_params
from jsc_explore.view_model.url_params import PageParams
from jsc_explore.web.plain_text import plain

# How long a browser may still report a URL that this session has since replaced: it asks for a run before it has
# read the new URL. A later report is the visitor's Back button.
IN_FLIGHT_S = 2.0


class UrlState(MutableMapping[str, Any]):
    """The state of one page in this session by parameter name, shared by its widgets and its URL.

    A run of the page calls ``restore`` first and ``write`` last. Values have a session key of their own, apart from
    those of widgets: Streamlit drops the state of a widget that is not drawn, and two pages may use one widget name.
    """

    def __init__(self, page: str, params: PageParams) -> None:
        self.page, self.params = page, params

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        raise TypeError("a parameter of a page always has a value")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def _values(self) -> dict[str, Any]:
        if self.page not in st.session_state:
            self.load({})
        values: dict[str, Any] = st.session_state[self.page]
        return values

    @property
    def query(self) -> dict[str, str]:
        """The query of the URL that shows this state."""
        return self.params.write(self._values)

    @property
    def is_in_url(self) -> bool:
        """Whether the browser's URL has parameters; a link of the navigation has none."""
        return bool(_query())

    def restore(self) -> None:
        """Load the state from the browser's URL if that has changed; show a warning for each invalid parameter.

        A page that is opened again without parameters keeps its state.
        """
        query = _query()
        if self.page not in st.session_state or (query and query not in self._known()):
            self.load(query)
        faults = st.session_state[f"{self.page} faults"]
        for line in faults:
            st.warning(f"In the URL: {plain(line)}", icon=":material/link_off:")
        if faults:
            st.button("Dismiss", key=f"{self.page} dismiss faults", on_click=faults.clear)

    def load(self, query: Mapping[str, str]) -> None:
        """Set the state from a query; parameters that it does not name take their defaults."""
        values, faults = self.params.read(query)
        st.session_state[self.page] = values
        st.session_state[f"{self.page} known"] = [dict(query)]
        st.session_state[f"{self.page} in flight"] = []
        st.session_state[f"{self.page} faults"] = faults

    def write(self) -> None:
        """Write the state to the browser's URL."""
        query = self.query
        if query != _query():
            now = time.monotonic()
            st.session_state[f"{self.page} in flight"] = [(now, one) for one in [*self._known(), _query()]]
            embedding = {key: text for key, text in st.query_params.to_dict().items() if _is_embedding(key)}
            st.query_params.from_dict(embedding | query)
        st.session_state[f"{self.page} known"] = [query]

    def widget(
        self,
        draw: Callable[..., Any],
        name: str,
        *args: Any,
        on_change: Callable[[], None] | None = None,
        **options: Any,
    ) -> Any:
        """Draw a widget whose value is the parameter ``name``; return the value."""
        key = f"{self.page} {name}"

        def changed() -> None:
            # During quick redraws a browser may report the value before, or that of a widget that is not set yet.
            if st.session_state[key] is None or st.session_state[key] == self[name]:
                return
            self.change(name, st.session_state[key])
            if on_change is not None:
                on_change()

        # Set it only if it differs: otherwise a slider that is dragged while its panel is redrawn would jump back.
        if key not in st.session_state or st.session_state[key] != self[name]:
            st.session_state[key] = self[name]
        draw(*args, key=key, on_change=changed, **options)
        return self[name]

    def change(self, name: str, value: Any) -> None:
        """Set a parameter on behalf of the visitor; this also dismisses the warnings about the URL."""
        self[name] = value
        st.session_state[f"{self.page} faults"] = []
        # Who uses a widget does not navigate: a URL that comes with the change can only be an old one.
        st.session_state[f"{self.page} known"].append(_query())

    def _known(self) -> list[dict[str, str]]:
        """Return the queries that this session has written or met, and that are therefore not a navigation."""
        since = time.monotonic() - IN_FLIGHT_S
        in_flight = [query for written_at, query in st.session_state[f"{self.page} in flight"] if written_at > since]
        return [*st.session_state[f"{self.page} known"], *in_flight]


def _query() -> dict[str, str]:
    return {key: text for key, text in st.query_params.to_dict().items() if not _is_embedding(key)}


def _is_embedding(key: str) -> bool:
    # Streamlit's own: embed, embed_options.
    return key.startswith("embed")


EXPLORE = UrlState("explore", url_params.EXPLORE)
COMPARE = UrlState("compare", url_params.COMPARE)
OVERVIEW = UrlState("overview", url_params.OVERVIEW)
DATA = UrlState("data", url_params.DATA)
