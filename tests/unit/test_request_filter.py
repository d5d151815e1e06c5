"""The request filter: the page's own names, origins and paths, and nothing else."""

import asyncio

import pytest

from jsc_explore.web.request_filter import RequestFilter
from jsc_explore.web.server import page_urls


def ask(path="/", host="localhost:8501", origin=None, kind="http", address="localhost", hostnames=()):
    """Send one request through the filter; return the status and the headers of the answer, and the host behind it."""
    seen, sent = [], []

    async def application(scope, receive, send):
        seen.append(dict(scope["headers"])[b"host"].decode())
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    headers = [(b"host", host.encode())] + ([(b"origin", origin.encode())] if origin is not None else [])
    scope = {"type": kind, "path": path, "headers": headers, "extensions": {"websocket.http.response": {}}}
    asyncio.run(RequestFilter(application, address, hostnames)(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"]), seen


@pytest.mark.parametrize("path", ["/", "/compare", "/_stcore/health", "/_stcore/host-config", "/media/ab12.png",
                                  "/static/js/index.js", "/oauth2callback", "/jets/_stcore/stream"])  # fmt: skip
def test_the_page_is_served(path):
    assert ask(path)[0] == 200


@pytest.mark.parametrize("path", ["/_stcore/metrics", "/_stcore/upload_file/session/file", "/_stcore/agent/interact",
                                  "/_stcore/agent/openapi.json", "/_stcore/script-health-check", "/component/x/y.js",
                                  "/_stcore/bidi-components/x/_stcore/health", "/jets/_stcore/metrics"])  # fmt: skip
def test_what_streamlit_offers_beside_the_page_is_not_served(path):
    assert ask(path)[0] == 404


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8501", "http://localhost:8501", 200),
        ("localhost:9000", "http://localhost:9000", 200),  # ssh -L 9000:localhost:8501
        ("127.0.0.1:8501", "http://127.0.0.1:8501", 200),
        ("[::1]:8501", "http://[::1]:8501", 200),
        ("jets.localhost:8501", "http://jets.localhost:8501", 200),
        ("localhost:8501", None, 200),
        # Another server on the same machine, which may be another user's.
        ("localhost:8501", "http://localhost:8888", 403),
        ("localhost:8501", "https://evil.org", 403),
        ("localhost:8501", "null", 403),
        ("localhost:8501", "", 403),
        ("localhost:8501", "http://[", 403),
        # A name that its owner has made to lead to this machine.
        ("evil.org:8501", "http://evil.org:8501", 421),
        ("evil.org:8501", None, 421),
        ("", None, 421),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_local_page_is_served_to_itself_under_local_names(host, origin, status, kind):
    assert ask(host=host, origin=origin, kind=kind)[0] == status


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.5"])
@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("192.168.1.5:8501", "http://192.168.1.5:8501", 200),
        ("lab.local:8501", "http://LAB.local:8501", 200),
        ("192.168.1.5:8501", "http://192.168.1.6:8501", 403),
        ("192.168.1.5:8501", "http://localhost:8501", 403),
    ],
)
def test_a_page_for_the_network_is_served_to_itself_under_any_name(address, host, origin, status):
    assert ask(host=host, origin=origin, address=address)[0] == status


def test_behind_a_proxy_the_page_has_the_names_that_are_given():
    named = {"hostnames": ["jets.uni.edu"], "origin": "https://jets.uni.edu"}
    assert ask(host="127.0.0.1:8501", **named)[2] == ["jets.uni.edu"], "Streamlit sees a request to its own origin"
    assert ask(host="jets.uni.edu", **named)[0] == 200
    assert ask(host="jets.uni.edu", hostnames=["jets.uni.edu"], origin="https://evil.org")[0] == 403
    assert ask(host="jets.uni.edu", origin="https://jets.uni.edu")[0] == 421


def test_other_pages_may_not_frame_this_one():
    assert ask()[1][b"content-security-policy"] == b"frame-ancestors 'self'"


def test_a_page_for_the_network_has_a_local_address_for_the_person_who_runs_it():
    assert page_urls("0.0.0.0", 8501)[0] == page_urls("::", 8501)[0] == "http://localhost:8501"
    assert page_urls("0.0.0.0", 8501)[1].endswith(":8501, or its IP address")
    assert page_urls("localhost", 8501) == ("http://localhost:8501", "")
    assert page_urls("::1", 80) == ("http://[::1]:80", "")
