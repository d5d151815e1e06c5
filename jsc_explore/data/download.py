"""Download one file over HTTP, completely or not at all, with retries after temporary failures."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from jsc_explore.data.sources import source_error

ATTEMPTS = 4
WAIT_S = 1.0  # before the second attempt, doubled before each further one
TIMEOUT_S = 30.0  # to connect and between two packets, not for the whole file

_MOVED = "if it moved, set JSC_EXPLORE_{}_URL to a mirror, or use another source"
_TRANSIENT_STATUS = (408, 425, 429)  # and every 5xx
_WEB_PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head")


class _TransientError(Exception):
    """A failure after which another attempt may succeed."""


def download(name: str, url: str, path: Path, *, md5: str = "", progress: bool = False) -> None:
    """Download ``url`` to ``path``, which exists only if the file is complete.

    That is: it has the length that the server announced, the md5 (if given), and is not a web page instead of data.
    Raises DataError, naming the source ``name`` and the file, if ``ATTEMPTS`` attempts fail.
    """
    failure = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(WAIT_S * 2 ** (attempt - 1))
        try:
            _transfer(name, url, path, progress)
            _check(name, url, path, md5)
            return
        except _TransientError as error:
            path.unlink(missing_ok=True)
            failure = str(error)
    remedy = f"check the network, then run: jsc-explore data fetch {name}"
    raise source_error(name, path.name, f"{failure}, {ATTEMPTS} attempts in a row", remedy)


def _transfer(name: str, url: str, path: Path, progress: bool) -> None:
    import pooch
    from requests.exceptions import HTTPError, RequestException
    from tqdm import tqdm

    pooch.get_logger().setLevel("WARNING")  # it would advise the user to pin hashes
    # disable=None hides the bar if stderr is no terminal. Pooch evaluates the bar as a bool, which needs a total; it
    # sets the real total later.
    disable = None if progress else True
    bar = tqdm(desc=name, total=1, unit="B", unit_scale=True, leave=False, file=sys.stderr, disable=disable)
    get = pooch.HTTPDownloader(progressbar=bar, timeout=TIMEOUT_S)
    try:
        # No known_hash: pooch would report a web page as a wrong hash. _check looks at the content first.
        pooch.retrieve(url, known_hash=None, fname=path.name, path=path.parent, downloader=get)
    except HTTPError as error:
        status, reason = 0, ""
        if error.response is not None:
            status, reason = error.response.status_code, error.response.reason
            error.response.close()  # pooch leaves the connection open
        what = f"the server answered {status} {reason} for {url}"
        if status >= 500 or status in _TRANSIENT_STATUS:
            raise _TransientError(what) from error
        raise source_error(name, path.name, what, _MOVED.format(name.upper())) from error
    except RequestException as error:
        if isinstance(error, ValueError):  # requests raises ValueError for a malformed URL; another attempt cannot help
            raise source_error(name, path.name, f"cannot use the URL {url}") from error
        raise _TransientError(f"the transfer from {url} was interrupted ({type(error).__name__})") from error
    finally:
        bar.close()


def _check(name: str, url: str, path: Path, md5: str) -> None:
    import pooch

    with path.open("rb") as file:
        head = file.read(256).lstrip().lower()
    if head.startswith(_WEB_PAGE):
        what = f"{url} returned a web page instead of data"
        raise source_error(name, path.name, what, "open the URL in a browser to read it")
    if md5 and (found := pooch.file_hash(str(path), alg="md5")) != md5.lower():
        raise _TransientError(f"wrong checksum, md5 {found} instead of {md5}")
