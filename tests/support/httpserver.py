# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server on 127.0.0.1 that serves a directory and misbehaves on demand.

    with FileServer(directory) as url: ...        # url + "/name" is directory/name
    server = FileServer(directory); server.start(); server.url; server.requests; server.stop()

Ordinary files come with Content-Length, ETag and single byte ranges (If-Range too). Besides:

    /status/CODE            that status, empty (also /404)
    /hang                   no answer at all
    /hang-after/N/NAME      N bytes of the file, then nothing more
    /truncate/N/NAME        announces the whole file, sends N bytes, closes
    /lie-length/N/NAME      announces N bytes, sends the whole file, closes
    /no-length/NAME         the whole file without Content-Length, end of connection is the end
    /slow/N/NAME            the file, N bytes every 50 ms
    /redirect/N/NAME        N redirects, then the file
    /redirect-loop          two addresses that point at each other
    /redirect-to?URL        there
    /500-then-ok/NAME       500 the first time each name is asked for, then the file
    /busy/N/NAME            429 with a Retry-After of 0, 502, 503 and 504 in turn, N times, then the file
    /cut/N/NAME             N bytes of what was asked for, ranges too, then a reset
    /cut-no-range/N/NAME    N bytes, then a reset, the first time; then the whole file whatever the range
    /cut-changing/N/NAME    N bytes, then a reset, the first time; then NAME.new with another ETag
    /cut-lying/N/NAME       N bytes, then a reset, the first time; then zeros in place of the rest
    /cut-wrong-part/N/NAME  N bytes, then a reset, the first time; then another part than asked for, once
    /slow-head/NAME         a header line every 50 ms, for ever
    /private/NAME           401 without an Authorization header, else the file

`sent` counts the bytes of bodies. A certificate, as (certificate file, key file, CA file of clients or ""),
makes it https.
"""

from __future__ import annotations

import fcntl
import os
import socket
import ssl
import struct
import termios
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import IO
from urllib.parse import unquote


class FileServer:
    """See the module. `requests` lists (method, path, headers) in the order they came."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        port: int = 0,
        certificate: tuple[str, str, str] | None = None,
    ) -> None:
        self.directory = os.fspath(directory)
        self.sent = 0
        self.asked: dict[str, int] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.failed: set[str] = set()
        self.closing = threading.Event()
        owner = self

        class Handler(_Handler):
            server_of = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = False  # stop() waits for all of them
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate[0], certificate[1])
            if certificate[2]:
                context.load_verify_locations(certificate[2])
                context.verify_mode = ssl.CERT_REQUIRED
            # the handshake is the handler's, so that a bad one keeps nobody waiting
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
            self.url = self.url.replace("http:", "https:")

    def start(self) -> FileServer:
        self._thread.start()
        return self

    def stop(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> str:
        return self.start().url

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Handler(BaseHTTPRequestHandler):
    server_of: FileServer
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        mine = self.server_of
        mine.requests.append((self.command, self.path, dict(self.headers.items())))
        self.close_connection = True
        try:
            fault, *rest = self.path.lstrip("/").split("/")
            known = getattr(self, "_" + fault.partition("?")[0].replace("-", "_"), None)
            if fault.isdigit():
                self._status(fault)
            elif known and (rest or fault.startswith(("hang", "redirect-"))):
                known(*rest)
            else:
                self._file("/".join([fault, *rest]))
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            pass

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionResetError, ssl.SSLError):
            pass  # a client that does not like us, before it said anything

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _head(self, status: int, **headers: str | int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    def _data(self, parts: tuple[str, ...]) -> bytes:
        with open(self._path("/".join(parts)), "rb") as file:
            return file.read()

    def _path(self, name: str) -> str:
        return os.path.join(self.server_of.directory, unquote(name.partition("?")[0]))

    def _wait(self) -> None:
        self.server_of.closing.wait(30)

    # ---- an ordinary file

    def _file(self, name: str, most: int | None = None) -> None:
        """Answer with a file or the part asked for; most: reset the connection after that many bytes."""
        path = self._path(name)
        if not os.path.isfile(path):
            self._status("404")
            return
        found = os.stat(path)
        etag = f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
        if self.headers.get("If-None-Match") == etag:
            self._head(304, ETag=etag)
            return
        first, last = self._range(found.st_size, etag)
        if first > last and found.st_size:
            self._head(416, Content_Range=f"bytes */{found.st_size}", Content_Length=0)
            return
        partial = {"Content_Range": f"bytes {first}-{last}/{found.st_size}"}
        whole = last - first + 1 == found.st_size
        self._head(
            200 if whole else 206,
            Content_Length=last - first + 1,
            ETag=etag,
            Accept_Ranges="bytes",
            **({} if whole else partial),
        )
        if self.command == "HEAD":
            return
        count = last - first + 1
        with open(path, "rb") as file:
            if most is not None and most < count:
                self._some(self._part(file, first, most))
                return
            self.server_of.sent += count
            self.connection.sendfile(file, first, count or None)

    def _part(self, file: IO[bytes], first: int, count: int) -> bytes:
        file.seek(first)
        return file.read(count)

    def _some(self, data: bytes) -> None:
        """Send the beginning of a body, and when the other side has it, reset the connection."""
        self.server_of.sent += len(data)
        self.wfile.write(data)
        self.wfile.flush()
        unsent = struct.pack("i", 1)
        while struct.unpack("i", fcntl.ioctl(self.connection, termios.TIOCOUTQ, unsent))[0]:
            time.sleep(0.001)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _times(self) -> int:
        """Return how often this path was asked for before."""
        before = self.server_of.asked.get(self.path, 0)
        self.server_of.asked[self.path] = before + 1
        return before

    def _range(self, size: int, etag: str) -> tuple[int, int]:
        asked = self.headers.get("Range", "")
        if not asked.startswith("bytes=") or self.headers.get("If-Range", etag) != etag:
            return 0, size - 1
        first, _, last = asked.removeprefix("bytes=").partition("-")
        return int(first), min(int(last) if last else size - 1, size - 1)

    # ---- faults, named like their paths

    def _status(self, code: str) -> None:
        self._head(int(code), Content_Length=0)

    def _hang(self) -> None:
        self._wait()

    def _hang_after(self, count: str, *name: str) -> None:
        data = self._data(name)
        self._head(200, Content_Length=len(data))
        self.wfile.write(data[: int(count)])
        self.wfile.flush()
        self._wait()

    def _truncate(self, count: str, *name: str) -> None:
        data = self._data(name)
        self._head(200, Content_Length=len(data))
        self.wfile.write(data[: int(count)])

    def _lie_length(self, count: str, *name: str) -> None:
        self._head(200, Content_Length=int(count))
        self.wfile.write(self._data(name))

    def _no_length(self, *name: str) -> None:
        self._head(200)
        self.wfile.write(self._data(name))

    def _slow(self, count: str, *name: str) -> None:
        data, step = self._data(name), int(count)
        self._head(200, Content_Length=len(data))
        for start in range(0, len(data), step):
            self.wfile.write(data[start : start + step])
            self.wfile.flush()
            if self.server_of.closing.wait(0.05):
                return

    def _redirect(self, count: str, *name: str) -> None:
        rest = "/".join(name)
        target = f"/redirect/{int(count) - 1}/{rest}" if int(count) > 1 else f"/{rest}"
        self._head(302, Location=target, Content_Length=0)

    def _redirect_loop(self, *_: str) -> None:
        there = "/redirect-loop" if self.path.endswith("/back") else "/redirect-loop/back"
        self._head(302, Location=there, Content_Length=0)

    def _redirect_to(self, *_: str) -> None:
        self._head(302, Location=self.path.partition("?")[2], Content_Length=0)

    def _500_then_ok(self, *name: str) -> None:
        rest = "/".join(name)
        if rest in self.server_of.failed:
            self._file(rest)
        else:
            self.server_of.failed.add(rest)
            self._status("500")

    def _busy(self, count: str, *name: str) -> None:
        times = self._times()
        if times < int(count):
            code = (429, 502, 503, 504)[times % 4]
            self._head(code, Content_Length=0, **({"Retry-After": "0"} if code == 429 else {}))
        else:
            self._file("/".join(name))

    def _cut(self, count: str, *name: str) -> None:
        self._file("/".join(name), int(count))

    def _cut_no_range(self, count: str, *name: str) -> None:
        data = self._data(name)
        self._head(200, Content_Length=len(data), ETag='"x"')
        if self._times():
            self.server_of.sent += len(data)
            self.wfile.write(data)
        else:
            self._some(data[: int(count)])

    def _cut_changing(self, count: str, *name: str) -> None:
        if self._times():
            self._file("/".join(name) + ".new")
        else:
            self._file("/".join(name), int(count))

    def _cut_lying(self, count: str, *name: str) -> None:
        size = len(self._data(name))
        first = self._range(size, self.headers.get("If-Range", ""))[0]
        if first:
            whole = f"bytes {first}-{size - 1}/{size}"
            self._head(206, Content_Length=size - first, Content_Range=whole, ETag='"x"')
            self.wfile.write(bytes(size - first))
        else:
            self._file("/".join(name), None if self._times() else int(count))

    def _cut_wrong_part(self, count: str, *name: str) -> None:
        times = self._times()
        if times == 1:
            self._head(206, Content_Length=3, Content_Range="bytes 0-2/9", ETag='"x"')
            self.wfile.write(b"abc")
        else:
            self._file("/".join(name), None if times else int(count))

    def _slow_head(self, *_: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.server_of.closing.wait(0.05):
            self.wfile.write(b"X-Wait: a while\r\n")
            self.wfile.flush()

    def _private(self, *name: str) -> None:
        if self.headers.get("Authorization"):
            self._file("/".join(name))
        else:
            self._status("401")
