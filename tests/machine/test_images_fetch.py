# SPDX-License-Identifier: Apache-2.0
"""The download program against a real server that behaves, and one that does not."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.httpserver import FileServer

DATA = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    served = tmp_path / "served"
    served.mkdir()
    (served / "image.tgz").write_bytes(DATA)
    (served / "small").write_bytes(b"0123456789" * 3)
    server = FileServer(served).start()
    yield server
    server.stop()


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    path = tmp_path / "staging"
    path.mkdir()
    return path


def start(request: dict[str, Any]) -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    program = subprocess.Popen(
        [sys.executable, "-m", "maestro_py.images.fetch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert program.stdin
    program.stdin.write(json.dumps(request).encode() + b"\n")
    program.stdin.flush()
    return program


def fetch(url: str, staging: Path, **more: Any) -> list[dict[str, Any]]:
    """Run the program to its end and return its lines; stderr must be silent, the status must fit."""
    with start({"url": url, "dest": str(staging / "file"), "read_timeout": 5, **more}) as program:
        out, err = program.communicate(timeout=30)
    assert err == b""
    lines = [json.loads(line) for line in out.splitlines()]
    assert program.returncode == (0 if lines[-1].get("done") else 1)
    return lines


def refusal(url: str, staging: Path, **more: Any) -> str:
    """Return the message of a download that must fail and leave nothing."""
    error = fetch(url, staging, **more)[-1]["error"]
    assert list(staging.iterdir()) == []
    message: str = error["message"]
    prefix = f"cannot download {url}: "
    assert message.startswith(prefix)
    return message.removeprefix(prefix)


def test_a_file_arrives_with_its_sum(server: FileServer, staging: Path) -> None:
    checksum = {"type": "sha256sum", "value": SHA256}
    last = fetch(f"{server.url}/image.tgz", staging, size=len(DATA), checksum=checksum)[-1]
    assert last == {"done": True, "bytes": len(DATA), "sha256": SHA256}
    assert (staging / "file").read_bytes() == DATA
    assert server.requests[0][2]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("kind", ["sha256", "sha512", "md5"])
def test_each_checksum_type_is_verified(server: FileServer, staging: Path, kind: str) -> None:
    good = hashlib.new(kind, DATA).hexdigest()
    checksum = {"type": kind + "sum", "value": good}
    assert fetch(f"{server.url}/image.tgz", staging, checksum=checksum)[-1]["sha256"] == SHA256
    (staging / "file").unlink()
    bad = "0" * len(good)
    why = refusal(f"{server.url}/image.tgz", staging, checksum={"type": kind + "sum", "value": bad})
    assert why == f"checksum does not match: {kind} is {good}, expected {bad}"


def test_a_file_url_goes_through_the_same_checks(server: FileServer, staging: Path) -> None:
    url = f"file://{server.directory}/image.tgz"
    assert fetch(url, staging)[-1]["bytes"] == len(DATA)
    (staging / "file").unlink()
    assert refusal(url, staging, size=5) == f"the server offers {len(DATA)} bytes, expected 5"
    assert refusal("file:///nowhere/x", staging) == "No such file or directory"
    assert refusal("file:///dev/zero", staging) == "it is not a regular file"
    assert refusal("file://host/x", staging) == "a file URL names no host, this one names 'host'"


def test_missing_length_and_redirects_are_fine(server: FileServer, staging: Path) -> None:
    for path in ("no-length/image.tgz", "redirect/5/image.tgz"):
        assert fetch(f"{server.url}/{path}", staging)[-1]["sha256"] == SHA256
        (staging / "file").unlink()


@pytest.mark.parametrize(
    ("path", "more", "why"),
    [
        ("404", {}, "the server answered 404 Not Found"),
        ("missing.tgz", {}, "the server answered 404 Not Found"),
        ("500-then-ok/image.tgz", {}, "the server answered 500 Internal Server Error"),
        ("status/204", {}, "the server answered 204 No Content"),
        ("truncate/10/image.tgz", {}, f"10 of {len(DATA)} bytes arrived"),
        ("truncate/0/image.tgz", {}, f"0 of {len(DATA)} bytes arrived"),
        ("truncate/300000/image.tgz", {}, f"300000 of {len(DATA)} bytes arrived"),
        ("no-length/small", {"size": 31}, "30 of 31 bytes arrived"),
        ("no-length/small", {"size": 29}, "more than 29 bytes arrive, the size declared"),
        ("no-length/image.tgz", {"max_size": 1000}, "more than 1000 bytes arrive"),
        ("image.tgz", {"max_size": 1000}, f"the server offers {len(DATA)} bytes, at most 1000 are allowed"),
        ("image.tgz", {"size": 419181}, f"the server offers {len(DATA)} bytes, expected 419181"),
        ("lie-length/999999/image.tgz", {}, f"{len(DATA)} of 999999 bytes arrived"),
        ("lie-length/7/small", {"size": 30}, "the server offers 7 bytes, expected 30"),
        (
            "lie-length/7/small",
            {"checksum": {"type": "md5sum", "value": "0" * 32}},
            f"checksum does not match: md5 is {hashlib.md5(b'0123456').hexdigest()}, expected {'0' * 32}",
        ),
        ("image.tgz", {"checksum": {"type": "crc", "value": "0"}}, "checksum type 'crc' is not known"),
        ("redirect-loop", {}, "redirects in a circle, back to {url}/redirect-loop"),
        ("redirect/6/image.tgz", {}, "redirected more than 5 times"),
        (
            "redirect-to?file:///etc/passwd",
            {},
            "redirected to file:///etc/passwd, which is not http or https",
        ),
        ("hang", {"read_timeout": 0.3}, "the server did not answer within 300ms"),
        ("hang-after/9/image.tgz", {"read_timeout": 0.3}, "nothing came for 300ms after 9 bytes"),
        ("slow/10/image.tgz", {"deadline": 0.5}, "it took longer than 500ms"),
        ("hang", {"deadline": 0.5}, "it took longer than 500ms"),
    ],
)
def test_a_fault_is_named_and_leaves_nothing(
    server: FileServer, staging: Path, path: str, more: dict[str, Any], why: str
) -> None:
    assert refusal(f"{server.url}/{path}", staging, **more).startswith(why.replace("{url}", server.url))


def test_an_error_has_a_code_for_the_caller(server: FileServer, staging: Path) -> None:
    def code(path: str, **more: Any) -> str:
        return str(fetch(f"{server.url}/{path}", staging, **more)[-1]["error"]["code"])

    assert code("404") == "not-found"
    assert code("hang", deadline=0.3) == "timeout"
    assert code("truncate/1/image.tgz") == "failed"


def test_nobody_listening_and_no_such_host(staging: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        assert refusal(url, staging) == "Connection refused"
    assert refusal("ftp://host/x", staging) == "the scheme is 'ftp', expected http, https or file"


def test_a_server_that_is_no_http_server(staging: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        with start({"url": url, "dest": str(staging / "file")}) as program:
            connection = listener.accept()[0]
            connection.recv(4096)
            connection.sendall(b"220 welcome to the mail server\r\n")
            connection.close()
            out, err = program.communicate(timeout=30)
    assert err == b""
    message = json.loads(out)["error"]["message"]
    assert message.startswith(f"cannot download {url}: ")
    assert "HTTPConnectionPool" not in message
    assert list(staging.iterdir()) == []


def test_user_and_password_are_not_shown(server: FileServer, staging: Path) -> None:
    url = server.url.replace("//", "//user:secret@") + "/404"
    error = fetch(url, staging)[-1]["error"]
    assert error["message"] == f"cannot download {server.url}/404: the server answered 404 Not Found"


def test_what_is_there_already_is_not_overwritten(server: FileServer, staging: Path) -> None:
    (staging / "file").write_text("mine")
    error = fetch(f"{server.url}/small", staging)[-1]["error"]
    assert "File exists" in error["message"]
    assert (staging / "file").read_text() == "mine"


def test_progress_is_told_while_it_lasts(server: FileServer, staging: Path) -> None:
    *progress, last = fetch(f"{server.url}/slow/20000/image.tgz", staging)
    assert last["done"]
    assert 2 <= len(progress) <= 12  # 1.3 s, five a second, and a slow machine
    assert all(line["total"] == len(DATA) for line in progress)
    assert [line["bytes"] for line in progress] == sorted(line["bytes"] for line in progress)


def test_ended_from_outside_it_cleans_up(server: FileServer, staging: Path) -> None:
    with start({"url": f"{server.url}/hang", "dest": str(staging / "file")}) as program:
        while not (staging / "file").exists():
            time.sleep(0.005)
        program.terminate()
        out, err = program.communicate(timeout=30)
    assert err == b""
    assert json.loads(out)["error"]["message"] == "cannot go on: ended from outside"
    assert list(staging.iterdir()) == []


def test_a_request_that_is_none_is_said_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "maestro_py.images.fetch"],
        input=b"nonsense\n",
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert json.loads(done.stdout)["error"]["message"].startswith("cannot read the request")
