import io
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from rucap.errors import ImageError
from rucap.images import Limits, open_photo


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), "red").save(file, "PNG")
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_arguments):
        pass

    def do_GET(self):
        self.server.seen.append(self)
        route = getattr(self, self.path.partition("?")[0].strip("/").replace("-", "_").replace(".", "_"), None)
        (route or self.photo_png)()

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def photo_png(self):
        self.answer(200, png(), Content_Length=str(len(png())))

    def no_length(self):
        self.answer(200, png())

    def page(self):
        self.answer(200, b"<!doctype html><title>A photo</title>", Content_Type="text/html")

    def missing(self):
        self.answer(404)

    def moved(self):
        self.answer(302, Location="/photo.png")

    def round(self):
        self.answer(302, Location="/round")

    def to_file(self):
        self.answer(302, Location="file:///etc/passwd")

    def to_ftp(self):
        self.answer(302, Location="ftp://localhost/photo.png")

    def huge(self):
        self.answer(200, Content_Length="5000")

    def endless(self):
        self.send_response(200)
        self.end_headers()
        self.repeat(b"\0" * 65536, 0)

    def drip(self):
        self.send_response(200)
        self.end_headers()
        self.repeat(b"\0", 0.05)

    def drip_headers(self):
        self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
        self.repeat(b"x", 0.05)

    def silent(self):
        self.server.closing.wait(20)

    def nonsense(self):
        self.wfile.write(b"\0\1\2 what?\r\n\r\n")

    def repeat(self, chunk, seconds):
        try:
            while not self.server.closing.wait(seconds):
                self.wfile.write(chunk)
                self.wfile.flush()
        except OSError:
            self.server.cut.set()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.closing, server.cut = [], threading.Event(), threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


def error_of(url: str, **limits) -> str:
    with pytest.raises(ImageError) as caught:
        open_photo(url, Limits(**limits))
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("path", ["/photo.png", "/no-length", "/moved", "/a b.png", "/Файл:Кот.png?размер=1", "/%41#x"])
def test_photos(server, path):
    assert open_photo(server.url + path).size == (6, 4)
    assert "rucap" in server.seen[0].headers["User-Agent"]


def test_scheme_in_capitals(server):
    assert open_photo(server.url.replace("http", "HTTP") + "/photo.png").size == (6, 4)


def test_what_a_server_may_answer_instead(server):
    assert "404 Not Found" in error_of(server.url + "/missing")
    assert "web page" in error_of(server.url + "/page")
    assert "cannot be downloaded" in error_of(server.url + "/nonsense")
    assert "redirect" in error_of(server.url + "/round")
    assert len(server.seen) < 12


@pytest.mark.parametrize("path", ["/to-file", "/to-ftp"])
def test_redirects_lead_nowhere_but_to_the_web(server, path):
    assert "redirect" in error_of(server.url + path).lower()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://localhost/a.png", "data://x", "s3://bucket/a.png"])
def test_other_schemes(url):
    assert "give an http(s) URL or a path" in error_of(url)


@pytest.mark.parametrize(
    "url", ["http://", "http://[", "http://a:b/", "http:///x.png", "http://xn--/", "http://\udcff/", "http://a\nb/"]
)
def test_addresses_that_are_none(url):
    assert "check the address" in error_of(url)


def test_a_host_that_does_not_answer():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert "cannot be downloaded" in error_of(f"http://127.0.0.1:{unused.getsockname()[1]}/a.png")


@pytest.mark.parametrize("path", ["/huge", "/endless"])
def test_bytes_are_limited(server, path):
    assert "more than 4,000 bytes" in error_of(server.url + path, max_bytes=4000)


@pytest.mark.parametrize("path", ["/drip", "/drip-headers", "/silent"])
def test_time_is_limited_in_all(server, path):
    threads = threading.active_count()
    assert "no photo within 1 s" in error_of(server.url + path, timeout_seconds=1)
    if path != "/silent":
        assert server.cut.wait(10), "the connection stays open"
    server.closing.set()
    for _ in range(500):
        if threading.active_count() <= threads:
            return
        time.sleep(0.01)
    raise AssertionError("the download's thread lives on")
