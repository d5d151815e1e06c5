"""A session of the page without a browser: Streamlit's protocol over a websocket, for load tests and attacks."""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from jsc_explore.charts.grid import BOX, SELECTION, TOGGLED


class PageSession:
    """One session: the widgets it was sent, by key, and their state as a browser keeps it.

    Use as an asynchronous context manager. ``errors`` lists the exceptions and error boxes of the page, ``headers`` are
    sent with the handshake.
    """

    def __init__(self, address: str, query: str = "", headers: Mapping[str, str] | None = None, page: str = "") -> None:
        self.address, self.query, self.headers, self.page = address.replace("http", "ws", 1), query, headers, page
        self.errors: list[str] = []
        # How each run ended, in the order in which the server sent it.
        self.ends: list[int] = []
        self.texts: list[str] = []
        # The session's id, once it has run.
        self.id = ""
        # User key of a widget (or its label) -> its id and fragment.
        self.widgets: dict[str, tuple[str, str]] = {}
        self.disabled: set[str] = set()
        self._states: dict[str, WidgetState] = {}
        # Fragments with an interval of their own: seconds between two runs, time of the next one.
        self._intervals: dict[str, tuple[float, float]] = {}
        self._socket: ClientConnection

    async def __aenter__(self) -> PageSession:
        self._socket = await connect(
            f"{self.address}/_stcore/stream", subprotocols=[Subprotocol("streamlit")], max_size=None, open_timeout=60,
            additional_headers=self.headers,
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._socket.close()

    async def open(self) -> float:
        """Open the page; return the seconds until it was complete."""
        return await self.rerun()

    async def set(self, key: str, value: object, *, alone: bool = True) -> float:
        """Change a widget by its key or label, as a browser does; return the seconds until the answer was complete."""
        widget, fragment = self.widgets[key]
        return await self.send(widget, value, fragment if alone else "")

    async def send(self, widget: str, value: object, fragment: str = "") -> float:
        """Send a widget's state by its id, even if the page has no such widget."""
        state = WidgetState(id=widget)
        if value is PRESSED:
            state.trigger_value = True
        elif isinstance(value, bool):
            state.bool_value = value
        elif isinstance(value, str):
            state.string_value = value
        else:
            state.string_value = json.dumps(value)
        try:
            self._states[widget] = state
            return await self.rerun(fragment)
        finally:
            if value is PRESSED:
                del self._states[widget]

    async def rerun(self, fragment: str = "", *, is_auto: bool = False) -> float:
        """Rerun the page (or a fragment) with the current widget states; return the seconds until it was complete."""
        self.texts = []
        began = time.perf_counter()
        await self.request(fragment, is_auto=is_auto)
        await self.read()
        return time.perf_counter() - began

    async def request(self, fragment: str = "", *, is_auto: bool = False) -> None:
        """Ask for a run of the page (or a fragment) with the current widget states, without reading the answer."""
        message = BackMsg()
        message.rerun_script.is_auto_rerun = is_auto
        message.rerun_script.query_string = self.query
        message.rerun_script.page_name = self.page
        message.rerun_script.fragment_id = fragment
        message.rerun_script.widget_states.widgets.extend(self._states.values())
        await self.raw(message)

    async def forge(self, names: Iterable[str], rng: random.Random) -> None:
        """Send forged states of these widgets in one message, and read the answer."""
        message = BackMsg()
        message.rerun_script.query_string = self.query
        message.rerun_script.page_name = self.page
        message.rerun_script.widget_states.widgets.extend(forged(self.widgets[name][0], rng) for name in names)
        await self.raw(message)
        await self.read()

    async def raw(self, message: BackMsg) -> None:
        """Send any message without reading an answer."""
        await self.send_bytes(message.SerializeToString())

    async def send_bytes(self, content: bytes) -> None:
        """Send a frame, which need not be a message, without reading an answer."""
        await self._socket.send(content)

    async def until(self, holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Rerun until ``holds`` returns True; raise TimeoutError after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the condition did not hold within {timeout_s:g} s")
            await asyncio.sleep(0.2)
            await self.rerun()

    async def stay(self, seconds: float) -> None:
        """Stay for a while as a browser does: request each fragment that has an interval when it is due."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            due = [name for name, (_, at) in self._intervals.items() if at <= now]
            for name in due:
                if name not in self._intervals:  # An answer has replaced the fragment meanwhile.
                    continue
                every, _ = self._intervals[name]
                self._intervals[name] = (every, time.monotonic() + every)
                await self.rerun(name, is_auto=True)
            if not due:
                next_due = min((at for _, at in self._intervals.values()), default=end)
                await asyncio.sleep(max(0.005, min(end, next_due) - now))

    async def read(self) -> None:
        """Read what the server sends until a run has ended that was not replaced by another one."""
        again: dict[str, tuple[float, float]] = {}
        while True:
            data = await self._socket.recv()
            message = ForwardMsg()
            message.ParseFromString(data if isinstance(data, bytes) else data.encode())
            kind = message.WhichOneof("type")
            if kind == "delta":
                self._read_element(message)
            elif kind == "new_session":
                again, self.id = {}, message.new_session.initialize.session_id
            elif kind == "auto_rerun":
                every = message.auto_rerun.interval
                again[message.auto_rerun.fragment_id] = (every, time.monotonic() + every)
            elif kind == "page_info_changed":
                self.query = message.page_info_changed.query_string
            elif kind == "script_finished":
                self.ends.append(message.script_finished)
                if message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY:
                    self._intervals = again
                    return
                if message.script_finished == ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY:
                    self._intervals |= again
                    return

    def _read_element(self, message: ForwardMsg) -> None:
        if message.delta.WhichOneof("type") != "new_element":
            return
        element = message.delta.new_element
        kind = element.WhichOneof("type")
        if kind is None:
            return
        shown: Any = getattr(element, kind)
        if kind == "exception":
            self.errors.append(f"{shown.type}: {shown.message}")
        elif kind == "alert" and shown.format == shown.ERROR:
            self.errors.append(shown.body)
        if kind in ("alert", "markdown"):
            self.texts.append(shown.body)
        if widget := getattr(shown, "id", ""):
            # $$ID-<hash>-<key>; a widget without a key ends in None and is known by its label.
            key = widget.split("-", 2)[-1]
            name = getattr(shown, "label", "") if key == "None" else key
            self.widgets[name] = (widget, message.delta.fragment_id)
            (self.disabled.add if getattr(shown, "disabled", False) else self.disabled.discard)(name)


def texts(elements: Iterable[Any]) -> str:
    """Return the texts of a page's elements as a visitor reads them: without the escapes of ``plain``."""

    def shown(element: Any) -> str:
        value = str(element.value)
        if getattr(element, "type", "") == "latex":
            return value
        return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", value).replace("\u2060", "")

    return " ".join(shown(element) for element in elements)


PRESSED = object()
"""The state of a button that is pressed."""


def clicked(config_id: str) -> dict[str, Any]:
    """Return the grid's state that a browser sends when the cell of this config is clicked."""
    return {"selection": {SELECTION: [{"config_id": config_id}], TOGGLED: [], BOX: {}}}


def forged(widget: str, rng: random.Random) -> WidgetState:
    """Return a widget's state as no browser sends it: of a type and value that have nothing to do with the widget."""
    state = WidgetState(id=widget)
    name, value = rng.choice(_FORGED)
    if isinstance(value, list):
        getattr(state, name).data.extend(value)
    else:
        setattr(state, name, value)
    return state


_FORGED: list[tuple[str, Any]] = [
    ("bool_value", True), ("double_value", math.nan), ("double_value", -1e308), ("int_value", 10**18),
    ("int_value", -1),
    ("string_value", "\x00\n\r\x1b[31mTraceback (most recent call last):\n"), ("string_value", "x" * 10_000),
    ("string_value", '{"selection": 3}'), ("string_value", "null"), ("double_array_value", [math.nan] * 3),
    ("int_array_value", [10**9, -5]), ("string_array_value", ["no such choice", ""]), ("json_value", "{"),
    ("json_value", '{"selection": {"select": 7}}'), ("json_trigger_value", "NaN"), ("bytes_value", b"\xff\xfe"),
]  # fmt: skip
