"""Request filter: serve the page under its own names, to its own origin, and none of Streamlit's other endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Of what lies below _stcore the page needs these. Streamlit also has statistics there, uploads, which it keeps in
# memory, components, and an interface for agents.
_SERVED = ("stream", "health", "host-config")
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


class RequestFilter:
    """ASGI middleware that refuses requests of other origins, for other names, and for paths that are not the page's.

    The origin of a request is that of the web page that sends it. It must be the host that the request is for, or one
    of ``hostnames``: names under which a proxy shows the page, while it may ask this server under another one. With a
    local ``address`` no other host is served: a web page whose name is made to lead to this machine is of the same
    origin as the server (DNS rebinding). Other pages may not frame this one, where a visitor would click unawares.
    """

    def __init__(self, app: ASGIApp, address: str, hostnames: Sequence[str] = ()) -> None:
        self.app = app
        self.hostnames = frozenset(name.lower() for name in hostnames)
        self.is_local = address in _THIS_MACHINE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request or a websocket on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if refusal := self._refusal(scope):
            await refusal(scope, receive, send)
            return
        headers = MutableHeaders(scope=scope)
        if origin := headers.get("origin"):
            # Streamlit would ask a service on the Internet for this machine's address before it admits a named origin.
            headers["host"] = urlsplit(origin).netloc

        async def send_unframed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = "frame-ancestors 'self'"
            await send(message)

        await self.app(scope, receive, send_unframed)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        """Return the answer that refuses this request; None if it is admitted."""
        headers, path = Headers(scope=scope), scope["path"]
        _, is_endpoint, endpoint = path.partition("/_stcore/")
        if (is_endpoint and endpoint not in _SERVED) or "/component/" in path:
            return PlainTextResponse("Not found\n", 404)
        host, name = _host(f"//{headers.get('host', '')}")
        if self.is_local and not _is_local(name) and name not in self.hostnames:
            text = "This page is served to this machine only. To show it under another name: jsc-explore app --hostname"
            return PlainTextResponse(f"{text} {name or 'NAME'}\n", 421)
        if (origin := headers.get("origin")) is not None:
            origin_host, origin_name = _host(origin)
            if origin_host != host and origin_name not in self.hostnames:
                return PlainTextResponse("Requests of other web pages are refused.\n", 403)
        return None


def _is_local(name: str) -> bool:
    # Names below localhost are this machine to every browser and resolver.
    return name in _THIS_MACHINE or name.endswith(".localhost")


def _host(url: str) -> tuple[str, str]:
    """Return the host of a URL with its port, and without it; both are empty if the URL has none."""
    try:
        parts = urlsplit(url)
        return parts.netloc.lower(), parts.hostname or ""
    except ValueError:
        return "", ""
