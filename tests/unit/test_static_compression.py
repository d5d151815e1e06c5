"""Static scripts are sent compressed, compressed once, and equal to what Streamlit serves."""

import asyncio
import gzip

import pytest

from jsc_explore.web.static_compression import StaticCompression

SCRIPT = b"const a = 1;\n" * 1000


class Application:
    """Serves a script in two parts, and counts how often it is asked."""

    def __init__(self, cache=b"immutable"):
        self.cache, self.count = cache, 0

    async def __call__(self, scope, receive, send):
        self.count += 1
        headers = [(b"content-length", str(len(SCRIPT)).encode()), (b"etag", b'"1"'), (b"cache-control", self.cache)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": SCRIPT[:100], "more_body": True})
        await send({"type": "http.response.body", "body": SCRIPT[100:]})


def ask(app, path="/static/js/index.js", method="GET", **headers):
    sent = []

    async def send(message):
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(app({"type": "http", "method": method, "path": path, "headers": raw}, None, send))
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(one.get("body", b"") for one in sent[1:])


def test_a_script_is_compressed_once_and_comes_back_equal():
    application = Application()
    app = StaticCompression(application)
    for _ in range(2):
        status, headers, body = ask(app, accept_encoding="gzip, br")
        assert status == 200
        assert headers[b"content-encoding"] == b"gzip"
        assert headers[b"cache-control"] == b"immutable"
        assert headers[b"vary"] == b"Accept-Encoding"
        assert b"etag" not in headers
        assert int(headers[b"content-length"]) == len(body) < len(SCRIPT) / 10
        assert gzip.decompress(body) == SCRIPT
    assert application.count == 1


@pytest.mark.parametrize(
    "request_",
    [
        {"accept_encoding": "identity"}, {}, {"accept_encoding": "gzip", "range": "bytes=0-9"},
        {"accept_encoding": "gzip", "if_none_match": '"1"'}, {"accept_encoding": "gzip", "method": "HEAD"},
        {"accept_encoding": "gzip", "path": "/static/media/font.woff2"}, {"accept_encoding": "gzip", "path": "/x.js"},
    ],
)  # fmt: skip
def test_every_other_request_is_passed_on_unchanged(request_):
    application = Application()
    status, headers, body = ask(StaticCompression(application), **request_)
    assert (status, body, application.count) == (200, SCRIPT, 1)
    assert b"content-encoding" not in headers


def test_an_answer_that_may_change_is_not_kept():
    application = Application(cache=b"no-cache")
    app = StaticCompression(application)
    for count in (1, 2):
        assert b"content-encoding" not in ask(app, accept_encoding="gzip")[1]
        assert application.count == count
