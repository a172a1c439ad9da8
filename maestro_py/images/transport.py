# SPDX-License-Identifier: Apache-2.0
"""HTTP for the download program: one answer after bounded redirects, certificates, credentials, proxies.

requests does the talking; proxies come from the environment. Everything that may need root (certificate
files, keys) is read when a `Connection` is made, so that root can be given up before the first byte.
"""

from __future__ import annotations

import base64
import encodings.idna  # noqa: F401  # loaded now: once root is given up its file may be out of reach
import os
import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, ReadTimeoutError

from maestro_py import __version__
from maestro_py.errors import MaestroError, NotFound, TimedOut
from maestro_py.images.answer import Answer, Cannot, StartAgain, shown
from maestro_py.units import format_duration

try:
    import ssl
except ImportError:  # a Python built without it: http only
    ssl = None  # type: ignore[assignment]

MAX_REDIRECTS = 5
"""Redirects followed, never from https to http."""

CHUNK_SMALLEST, CHUNK_LARGEST = 16 << 10, 64 << 10
"""Bytes read at once: small on a slow line so that progress is seen, larger on a quick one.

Pieces of 256 KiB had the allocator keep 1.3 MiB more in a long download than in a short one.
"""

PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504, 507, 508, 509, 520, 521, 522, 523, 524, 529)
"""Statuses after which another try may do better: RFC 9110, RFC 6585 and what proxies add."""

_AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
"""Variables that name certificate authorities: those of OpenSSL and that of requests."""

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_WHOLE = re.compile(r"bytes \*/(\d+)")


class _Adapter(HTTPAdapter):
    """Uses one TLS context for everything, proxies too, instead of requests' own set of authorities."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=self._context, **options)

    def cert_verify(self, *args: Any, **options: Any) -> None:
        """The context does it."""


class Connection:
    """Asks for files as one who may. request: as in `fetch`."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._connect = float(request.get("connect_timeout") or 20)
        self._silence = float(request.get("read_timeout") or 30)
        self._credentials: Mapping[str, str] = request.get("credentials") or {}
        self._session = requests.Session()
        self._session.auth = lambda prepared: prepared  # and not what a .netrc says
        self._session.headers.update(
            {"Accept-Encoding": "identity", "User-Agent": f"maestro-py/{__version__}"}
        )
        self._session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=1))
        self._tls: Mapping[str, str] = request.get("tls") or {}
        self._protected = False
        https = str(request["url"]).startswith("https:")
        named = any(self._tls.values()) or any(map(os.environ.get, _AUTHORITIES))
        if ssl and (https or named or not _system_has_authorities()):
            self._protect()  # now: what was named may be for root only

    def get(self, url: str, start: int = 0, validator: str = "") -> Answer:
        """Ask for a file from byte `start` on, if it is still what `validator` (ETag or date) names.

        Raises Cannot.
        """
        url, own = _without_user(url)
        origin, seen = _origin(url), {url}
        range_asked = {"Range": f"bytes={start}-"} if start else {}
        if start and validator:
            range_asked["If-Range"] = validator
        while True:
            if url.startswith("https:"):
                self._protect()
            headers = dict(range_asked)
            if _origin(url) == origin and (own or self._credentials):
                headers["Authorization"] = own or _authorization(self._credentials)
            try:
                answer = self._session.get(
                    url,
                    headers=headers,
                    stream=True,
                    allow_redirects=False,
                    timeout=(self._connect, self._silence),
                )
            except (requests.RequestException, HTTPError, OSError, ValueError) as error:
                raise self._cannot_connect(error) from error
            target = self._session.get_redirect_target(answer)
            if target is None:
                return self._answer(answer, start)
            answer.close()
            url = _checked_target(url, urljoin(url, target), seen)
            seen.add(url)

    def _protect(self) -> None:
        """Get ready for https: the system's authorities alone take as long to read as a small image."""
        if not ssl:
            raise Cannot("this device's Python was built without ssl: http and file addresses only")
        if not self._protected:
            self._protected = True
            self._session.mount("https://", _Adapter(_context(self._tls)))

    def _answer(self, answer: requests.Response, asked: int) -> Answer:
        status, headers = answer.status_code, answer.headers
        whole = _WHOLE.fullmatch(headers.get("Content-Range", ""))
        if status == 416 and asked and whole and int(whole[1]) == asked:
            return Answer(asked, asked, iter(()))  # the file ends where we are
        if status == 416 and asked:
            raise Cannot(f"the server has no byte {asked} of it", kind=StartAgain, after=0)
        if status not in (200, 206):
            kind = NotFound if status in (404, 410) else MaestroError
            after = _retry_after(headers.get("Retry-After", "")) if status in PASSING_STATUS else None
            raise Cannot(
                f"the server answered {status} {answer.reason or ''}".rstrip(), kind=kind, after=after
            )
        length = headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        start = 0
        if status == 206:
            given = _RANGE.fullmatch(headers.get("Content-Range", ""))
            if not asked or not given or int(given[1]) != asked:
                raise Cannot("the server sent another part than the one asked for", kind=StartAgain, after=0)
            start = asked
            total = int(given[2]) if given[2] != "*" else None if total is None else start + total
        etag = headers.get("ETag", "")
        return Answer(
            start,
            total,
            self._chunks(answer),
            "" if etag.startswith("W/") else etag,  # a weak one promises no equal bytes (RFC 9110, 8.8.1)
            headers.get("Last-Modified", ""),
        )

    def _chunks(self, answer: requests.Response) -> Iterator[bytes]:
        answer.raw.enforce_content_length = False  # the receiver counts, and says how many of how many
        # read1 gives what is there; without it (urllib3 1.x) a chunk must be full before it is counted
        read = getattr(answer.raw, "read1", answer.raw.read)
        chunk_size, count = CHUNK_SMALLEST, 0
        while True:
            began = time.monotonic()
            try:
                chunk = read(chunk_size, decode_content=False)
            except ReadTimeoutError as error:
                why = f"nothing came for {format_duration(self._silence)} after {count} bytes"
                raise Cannot(why, kind=TimedOut, after=0) from error
            except (HTTPError, OSError) as error:
                why = f"the connection was cut after {count} bytes: {_reason(error)}"
                raise Cannot(why, after=0) from error
            if not chunk:
                return
            count += len(chunk)
            quick = time.monotonic() - began < 0.05
            chunk_size = min(chunk_size * 2, CHUNK_LARGEST) if quick else max(chunk_size // 2, CHUNK_SMALLEST)
            yield chunk

    def _cannot_connect(self, error: Exception) -> Cannot:
        if isinstance(error, requests.ConnectTimeout):
            why = f"no connection within {format_duration(self._connect)}"
            return Cannot(why, kind=TimedOut, after=0)
        if isinstance(error, requests.ReadTimeout):
            why = f"the server did not answer within {format_duration(self._silence)}"
            return Cannot(why, kind=TimedOut, after=0)
        why = _reason(error)
        lasting = why.startswith(_BAD_CERTIFICATE) or isinstance(error, ValueError)
        return Cannot(why, after=None if lasting else 0)


_BAD_CERTIFICATE = "the server's certificate is not accepted"


def _system_has_authorities() -> bool:
    places = ssl.get_default_verify_paths()
    return bool(places.cafile or places.capath)


def _context(tls: Mapping[str, str]) -> ssl.SSLContext:
    of_environment = os.environ.pop("REQUESTS_CA_BUNDLE", "")  # requests would trust them on top of ours
    authorities = tls.get("ca_file") or of_environment
    if not authorities and not _system_has_authorities():
        import certifi

        authorities = certifi.where()  # a device without a set of its own
    what = authorities
    try:
        context = ssl.create_default_context(cafile=authorities or None)
        what = tls.get("client_cert", "")
        if what:
            context.load_cert_chain(what, tls.get("client_key") or None, password=lambda: b"")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise Cannot(f"the certificate file {what} cannot be used: {_reason(error)}") from error
    return context


def _authorization(credentials: Mapping[str, str]) -> str:
    if credentials["type"] == "bearer":
        return f"Bearer {credentials['value']}"
    pair = f"{credentials.get('user', '')}:{credentials['value']}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _without_user(url: str) -> tuple[str, str]:
    """Return a URL without user and password, and the header that says the same."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    if not at:
        return url, ""
    name, _, password = user.partition(":")
    return shown(url), _authorization({"type": "basic", "user": unquote(name), "value": unquote(password)})


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _checked_target(url: str, target: str, seen: set[str]) -> str:
    """Return where a redirect leads, without a user in it. Raises Cannot."""
    try:
        target, _ = _without_user(target)
        scheme, _, _ = _origin(target)
    except ValueError as error:  # a port that is none
        raise Cannot("redirected to something that is no URL") from error
    if scheme not in ("http", "https"):
        raise Cannot(f"redirected to {target}, which is not http or https")
    if url.startswith("https:") and scheme != "https":
        raise Cannot(f"redirected from https to {target}, which is not protected")
    if target in seen:
        raise Cannot(f"redirects in a circle, back to {target}")
    if len(seen) > MAX_REDIRECTS:
        raise Cannot(f"redirected more than {MAX_REDIRECTS} times")
    return target


def _retry_after(text: str) -> float:
    """Return the seconds of a Retry-After header, RFC 9110 10.2.3; 0 when there is none to be understood."""
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _reason(error: BaseException) -> str:
    """Return the words of the system below the layers that wrapped its error."""
    seen: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        found = queue.pop(0)
        if not isinstance(found, BaseException) or any(found is one for one in seen):
            continue
        seen.append(found)
        verify = getattr(found, "verify_message", "")
        if verify:
            return f"{_BAD_CERTIFICATE}: {verify}"
        if isinstance(found, OSError) and found.strerror:
            return str(found.strerror)
        queue += [*found.args, getattr(found, "reason", None), found.__cause__, found.__context__]
    return str(seen[-1]) or type(error).__name__
