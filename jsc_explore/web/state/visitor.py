"""The visitor of this session: address, session, login, and whether it is the person who runs the app."""

from __future__ import annotations

import ipaddress
from itertools import cycle
from urllib.parse import urlsplit

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

# Streamlit makes tokens of 16 bytes; a shorter one could be guessed.
MIN_TOKEN_BYTES = 16
# By these a proxy names the visitor, the address that the visitor opened, or itself.
_PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")


def session() -> str:
    """Return the id of this session, a secret between the server and the browser."""
    context = get_script_run_ctx()
    return context.session_id if context is not None else ""


def identities() -> list[str]:
    """Return what identifies this visitor, the most lasting first: login, browser, or this session alone.

    The browser's is the random token of the cookie against forged requests, which the server sets before a session
    begins. It survives reloads, lasts until the browser is closed, and is as secret as a login's cookie. A visitor may
    choose another one, but cannot know those of others.
    """
    known = [f"login {address}"] if (address := email()) else []
    token = _browser_token(st.context.cookies.get("_streamlit_xsrf") or "")
    return [*known, f"browser {token}" if token else f"session {session()}"]


def _browser_token(cookie: str) -> str:
    """Return the token in a cookie ``2|mask|token|time``, each time masked anew; empty if it is not of this form."""
    try:
        version, mask, masked, _ = cookie.strip('"').split("|")
        token = bytes(a ^ b for a, b in zip(bytes.fromhex(masked), cycle(bytes.fromhex(mask)), strict=False))
    except ValueError:
        return ""
    return token.hex() if version == "2" and len(token) >= MIN_TOKEN_BYTES else ""


def client_address() -> str:
    """Return the address of this visitor: that of the connection, or the one that a trusted proxy forwards.

    Limits count by it. Of an IPv6 address it is the network of 64 bits, all of which one machine may have. uvicorn
    reads X-Forwarded-For, from the proxies only that ``Access.trusted_proxies`` names.
    """
    address: object = st.context.ip_address  # None for this machine.
    try:
        parsed = ipaddress.ip_address(address if isinstance(address, str) else "127.0.0.1")
    except ValueError:
        return str(address)
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network(f"{parsed}/64", strict=False)) if not parsed.scope_id else str(parsed)


def is_owner() -> bool:
    """Whether this visitor runs the app: a browser on the same machine that has opened it by a local address.

    A connection from this machine may also be that of a proxy. A browser sends the address that its visitor opened as
    Origin, which no page can change and proxies pass on, whatever they write into Host.
    """
    headers = st.context.headers
    origin = urlsplit(headers.get("Origin") or "").hostname
    is_direct = st.context.ip_address is None and not any(name in headers for name in _PROXY_HEADERS)
    return is_direct and origin in ("localhost", "127.0.0.1", "::1")


def email() -> str | None:
    """Return the address with which this visitor has logged in, if the provider says that it has verified it.

    Some providers let their users enter any address, and do not send the claim at all.
    """
    if not st.user.get("is_logged_in") or st.user.get("email_verified") is not True:
        return None
    address = st.user.get("email")
    return address if isinstance(address, str) else None
