"""A URL's bytes, within limits of size and of total time. This module knows HTTP; it does not know what an image is."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import socket
import string
import threading
import time
from collections.abc import Callable
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from rucap.errors import ImageError
from rucap.images.limits import Limits

_HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; rucap)", "Accept": "image/*,*/*;q=0.5"}


def download(url: str, limits: Limits) -> bytes:
    """GETs an http(s) `url` of at most `limits.max_bytes` within `limits.timeout_seconds` in all.

    Raises ImageError, which names the URL, for anything that goes wrong.
    """
    connections: list[http.client.HTTPConnection] = []
    outcome: concurrent.futures.Future[bytes] = concurrent.futures.Future()

    def work() -> None:
        try:
            outcome.set_result(_get(url, limits, connections))
        except Exception as error:
            outcome.set_exception(error)

    # A socket's timeout holds for one read only; a server that drips bytes, or a slow name look-up, takes for ever.
    # The deadline for everything is therefore kept from outside, and the connection is cut so that the thread ends.
    threading.Thread(target=work, name="rucap-download", daemon=True).start()
    try:
        return outcome.result(limits.timeout_seconds)
    except (concurrent.futures.TimeoutError, TimeoutError):
        for connection in connections:
            with contextlib.suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        raise ImageError(f"{url}: no photo within {limits.timeout_seconds:g} s; try again or allow more time") from None


def _get(url: str, limits: Limits, connections: list[http.client.HTTPConnection]) -> bytes:
    deadline = time.monotonic() + limits.timeout_seconds
    opener = build_opener(_WebOnly(), _Keeping(connections))
    try:
        request = Request(_ascii(url), headers=_HEADERS)
        with opener.open(request, timeout=limits.timeout_seconds) as response:
            length = response.headers.get("Content-Length", "")
            if length.isdecimal() and int(length) > limits.max_bytes:
                raise too_large(url, limits)
            return read_within(response.read1, url, limits, deadline)
    except HTTPError as error:
        with error:
            raise ImageError(f"{url}: the server answers {error.code} {error.reason}; check the address") from None
    except TimeoutError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, TimeoutError):
            raise reason from None
        raise ImageError(f"{url}: cannot be downloaded ({reason}); check the address and the connection") from None


def read_within(read: Callable[[int], bytes], name: str, limits: Limits, deadline: float = float("inf")) -> bytes:
    """Calls `read(size)` until it gives nothing. Raises ImageError past `max_bytes`, TimeoutError past `deadline`."""
    chunks, total = [], 0
    while chunk := read(1 << 18):
        chunks.append(chunk)
        total += len(chunk)
        if total > limits.max_bytes:
            raise too_large(name, limits)
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(chunks)


def too_large(name: str, limits: Limits) -> ImageError:
    """The error for more bytes than `limits` allows."""
    return ImageError(f"{name}: more than {limits.max_bytes:,} bytes; make the photo smaller or raise the limit")


def _ascii(url: str) -> str:
    """`url` as HTTP carries it: a Cyrillic host in IDNA, anything else that is not ASCII percent-encoded."""
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("it names no host")
    if not parts.netloc.isascii():
        host = parts.hostname.encode("idna").decode("ascii")
        parts = parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host)
    return quote(parts.geturl(), safe=string.punctuation)


class _WebOnly(HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> Request | None:
        # urllib itself would follow a redirect to ftp.
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise ImageError(f"{req.full_url}: redirects to {newurl}; only http and https are followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Keeping(HTTPHandler, HTTPSHandler):
    """Keeps each connection that it opens in `connections`."""

    def __init__(self, connections: list[http.client.HTTPConnection]) -> None:
        super().__init__()
        self.connections = connections

    def http_open(self, req: Request) -> http.client.HTTPResponse:
        return self._open(http.client.HTTPConnection, req)

    def https_open(self, req: Request) -> http.client.HTTPResponse:
        return self._open(http.client.HTTPSConnection, req)

    def _open(self, kind: type[http.client.HTTPConnection], request: Request) -> http.client.HTTPResponse:
        def connect(host: str, timeout: float) -> http.client.HTTPConnection:
            self.connections.append(kind(host, timeout=timeout))
            return self.connections[-1]

        return self.do_open(connect, request)  # type: ignore[arg-type]  # typeshed asks for more than is used
