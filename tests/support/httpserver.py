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
"""

from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote


class FileServer:
    """See the module. `requests` lists (method, path, headers) in the order they came."""

    def __init__(self, directory: str | os.PathLike[str], port: int = 0) -> None:
        self.directory = os.fspath(directory)
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
        except (BrokenPipeError, ConnectionResetError):
            pass

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

    def _file(self, name: str) -> None:
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
        with open(path, "rb") as file:
            self.connection.sendfile(file, first, last - first + 1 or None)

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
