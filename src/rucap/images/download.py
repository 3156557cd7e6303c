"""A URL's bytes, within limits of size and of total time. This module knows HTTP; it does not know what an image is."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import socket
import string
import threading
import time
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from rucap.errors import ImageError
from rucap.images.limits import Limits, read_within, too_large
from rucap.images.wording import detail, printable

_HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; rucap)", "Accept": "image/*,*/*;q=0.5"}


def download(url: str, limits: Limits) -> bytes:
    """GETs an http(s) `url` of at most `limits.max_bytes` within `limits.timeout_seconds` in all.

    Raises ImageError, which names the URL, for anything that goes wrong.
    """
    name = printable(url)
    connections: list[http.client.HTTPConnection] = []
    outcome: concurrent.futures.Future[bytes] = concurrent.futures.Future()

    def work() -> None:
        try:
            outcome.set_result(_get(url, name, limits, connections))
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
        raise ImageError(
            f"{name}: no photo within {limits.timeout_seconds:g} s; try again or allow more time"
        ) from None


def _get(url: str, name: str, limits: Limits, connections: list[http.client.HTTPConnection]) -> bytes:
    deadline = time.monotonic() + limits.timeout_seconds
    opener = build_opener(_WebOnly(), _Keeping(connections))
    try:
        request = Request(_ascii(url), headers=_HEADERS)
        with opener.open(request, timeout=limits.timeout_seconds) as response:
            length = response.headers.get("Content-Length", "")
            if length.isdecimal() and int(length) > limits.max_bytes:
                raise too_large(name, limits)
            return read_within(response.read1, name, limits, deadline)
    except HTTPError as error:
        with error:
            raise ImageError(
                f"{name}: the server answers {error.code} {detail(error.reason)}; check the address"
            ) from None
    except TimeoutError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, TimeoutError):
            raise reason from None
        raise ImageError(
            f"{name}: cannot be downloaded ({detail(reason)}); check the address and the connection"
        ) from None


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
            raise ImageError(
                f"{printable(req.full_url)}: redirects to {printable(newurl)}; only http and https are followed"
            )
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
