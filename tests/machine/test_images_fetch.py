# SPDX-License-Identifier: Apache-2.0
"""The download program against a real server that behaves, and one that does not."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.httpserver import FileServer

from maestro_py.images import part, transport

DATA = bytes(range(256)) * 2000


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


def start(request: dict[str, Any], **more: str) -> subprocess.Popen[bytes]:
    environment = more | {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
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
    with start({"url": url, "part": str(staging / "file"), "read_timeout": 5, **more}) as program:
        out, err = program.communicate(timeout=30)
    assert err == b""
    lines = [json.loads(line) for line in out.splitlines()]
    assert program.returncode == (0 if lines[-1].get("done") else 1)
    return lines


def refusal(url: str, staging: Path, **more: Any) -> str:
    """Return the message of a download that must fail."""
    error = fetch(url, staging, **more)[-1]["error"]
    message: str = error["message"]
    prefix = f"cannot download {url}: "
    assert message.startswith(prefix)
    return message.removeprefix(prefix)


def test_a_file_arrives(server: FileServer, staging: Path) -> None:
    last = fetch(f"{server.url}/image.tgz", staging, size=len(DATA))[-1]
    assert last == {"done": True, "bytes": len(DATA), "fetched": len(DATA)}
    assert (staging / "file").read_bytes() == DATA
    assert server.requests[0][2]["Accept-Encoding"] == "identity"


def test_a_file_url_goes_through_the_same_checks(server: FileServer, staging: Path) -> None:
    url = f"file://{server.directory}/image.tgz"
    assert fetch(url, staging)[-1]["bytes"] == len(DATA)
    assert (staging / "file").read_bytes() == DATA
    assert refusal(url, staging, size=5) == f"the server offers {len(DATA)} bytes, expected 5"
    assert refusal("file:///nowhere/x", staging) == "No such file or directory"
    assert refusal("file:///dev/zero", staging) == "it is not a regular file"
    assert refusal("file://host/x", staging) == "a file URL names no host, this one names 'host'"


def test_missing_length_and_redirects_are_fine(server: FileServer, staging: Path) -> None:
    for path in ("no-length/image.tgz", "redirect/5/image.tgz"):
        assert fetch(f"{server.url}/{path}", staging)[-1]["done"]
        assert (staging / "file").read_bytes() == DATA
        (staging / "file").write_bytes(b"")


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
def test_a_fault_is_named(
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
        with start({"url": url, "part": str(staging / "file")}) as program:
            connection = listener.accept()[0]
            connection.recv(4096)
            connection.sendall(b"220 welcome to the mail server\r\n")
            connection.close()
            out, err = program.communicate(timeout=30)
    assert err == b""
    message = json.loads(out)["error"]["message"]
    assert message.startswith(f"cannot download {url}: ")
    assert "HTTPConnectionPool" not in message


def test_user_and_password_are_not_shown(server: FileServer, staging: Path) -> None:
    url = server.url.replace("//", "//user:secret@") + "/404"
    error = fetch(url, staging)[-1]["error"]
    assert error["message"] == f"cannot download {server.url}/404: the server answered 404 Not Found"


def test_progress_is_told_while_it_lasts(server: FileServer, staging: Path) -> None:
    *progress, last = fetch(f"{server.url}/slow/20000/image.tgz", staging)
    assert last["done"]
    assert 2 <= len(progress) <= 12  # 1.3 s, five a second, and a slow machine
    assert all(line["total"] == len(DATA) for line in progress)
    assert all(0 < line["rate"] < 2_000_000 for line in progress)
    assert [line["bytes"] for line in progress] == sorted(line["bytes"] for line in progress)


def test_ended_from_outside_it_says_so(server: FileServer, staging: Path) -> None:
    with start({"url": f"{server.url}/hang", "part": str(staging / "file")}) as program:
        while not (staging / "file").exists():
            time.sleep(0.005)
        program.terminate()
        out, err = program.communicate(timeout=30)
    assert err == b""
    assert json.loads(out)["error"]["message"] == "cannot go on: ended from outside"


def test_a_request_that_is_none_is_said_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "maestro_py.images.fetch"],
        input=b"nonsense\n",
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert json.loads(done.stdout)["error"]["message"].startswith("cannot read the request")


# ---- what may be tried again


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("500-then-ok/image.tgz", {}),
        ("status/503", {}),
        ("status/429", {}),
        ("truncate/10/image.tgz", {}),
        ("cut/10/image.tgz", {}),
        ("hang", {"read_timeout": 0.3}),
        ("hang-after/9/image.tgz", {"read_timeout": 0.3}),
        ("redirect-to?http://127.0.0.1:1/x", {}),
    ],
)
def test_what_may_pass_is_worth_another_try(
    server: FileServer, staging: Path, path: str, more: dict[str, Any]
) -> None:
    assert fetch(f"{server.url}/{path}", staging, **more)[-1]["error"]["after"] == 0


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("404", {}),
        ("status/403", {}),
        ("private/image.tgz", {}),
        ("status/204", {}),
        ("redirect-loop", {}),
        ("redirect/6/image.tgz", {}),
        ("image.tgz", {"size": 7}),
        ("no-length/image.tgz", {"max_size": 1000}),
        ("slow-head/image.tgz", {"deadline": 0.5}),
    ],
)
def test_what_will_not_pass_is_not(
    server: FileServer, staging: Path, path: str, more: dict[str, Any]
) -> None:
    assert "after" not in fetch(f"{server.url}/{path}", staging, **more)[-1]["error"]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("17", 17, 17), ("", 0, 0), ("soon", 0, 0), ("Wed, 21 Oct 2099 07:28:00 GMT", 1e9, 1e10)],
)
def test_how_long_a_server_wants_us_to_wait_is_understood(text: str, low: float, high: float) -> None:
    assert low <= transport._retry_after(text) <= high


# ---- going on


def test_ten_cuts_cost_nothing_twice(server: FileServer, staging: Path) -> None:
    tenth = len(DATA) // 11 + 1
    for cut in range(10):
        error = fetch(f"{server.url}/cut/{tenth}/image.tgz", staging, content="sum")[-1]["error"]
        assert "after" in error
        assert (staging / "file").stat().st_size == (cut + 1) * tenth
    last = fetch(f"{server.url}/cut/{tenth}/image.tgz", staging, content="sum")[-1]
    assert last == {"done": True, "bytes": len(DATA), "fetched": len(DATA) - 10 * tenth}
    assert (staging / "file").read_bytes() == DATA
    assert server.sent == len(DATA)
    assert all("If-Range" in headers for _, _, headers in server.requests[1:])


@pytest.mark.parametrize(("fault", "data"), [("cut-no-range", DATA), ("cut-changing", DATA[::-1])])
def test_what_cannot_be_gone_on_with_begins_anew(
    server: FileServer, staging: Path, fault: str, data: bytes
) -> None:
    (Path(server.directory) / "image.tgz.new").write_bytes(DATA[::-1])
    url = f"{server.url}/{fault}/1000/image.tgz"
    assert "after" in fetch(url, staging, content="sum")[-1]["error"]
    assert fetch(url, staging, content="sum")[-1]["fetched"] == len(data)
    assert (staging / "file").read_bytes() == data


def test_what_neither_a_checksum_nor_the_server_proves_begins_anew(server: FileServer, staging: Path) -> None:
    url = f"{server.url}/truncate/1000/image.tgz"  # without ETag and date
    for _ in range(2):
        assert "after" in fetch(url, staging)[-1]["error"]
    assert all("Range" not in headers for _, _, headers in server.requests)
    again = f"{server.url}/cut/1000/image.tgz"
    for _ in range(2):
        fetch(again, staging)
    assert server.requests[-1][2]["Range"] == "bytes=1000-"
    assert server.requests[-1][2]["If-Range"]


def test_another_part_than_the_one_asked_for_is_not_taken(server: FileServer, staging: Path) -> None:
    url = f"{server.url}/cut-wrong-part/1000/image.tgz"
    assert "after" in fetch(url, staging, content="sum")[-1]["error"]
    error = fetch(url, staging, content="sum")[-1]["error"]
    assert error["message"].endswith("the server sent another part than the one asked for")
    assert error["after"] == 0
    assert fetch(url, staging, content="sum")[-1]["fetched"] == len(DATA)
    assert (staging / "file").read_bytes() == DATA


def test_after_a_power_cut_only_what_was_on_disk_counts(server: FileServer, staging: Path) -> None:
    url, state = f"{server.url}/cut/3000/image.tgz", staging / "file.json"
    fetch(url, staging, content="sum")
    known = json.loads(state.read_text())
    assert known["safe"] == 0  # nothing was synced: it was too quick
    (staging / "file").write_bytes(DATA[:1000] + bytes(4000))  # the length came to disk, the bytes did not
    state.write_text(json.dumps({**known, "boot": "another", "safe": 1000}))
    last = fetch(f"{server.url}/image.tgz", staging, content="sum")[-1]
    assert last["fetched"] == len(DATA) - 1000
    assert server.requests[-1][2]["Range"] == "bytes=1000-"
    assert (staging / "file").read_bytes() == DATA
    state.write_text(json.dumps({**known, "boot": "another"}))
    assert fetch(f"{server.url}/image.tgz", staging, content="sum")[-1]["fetched"] == len(DATA)


def test_a_claim_about_the_disk_comes_after_the_bytes(staging: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        known = json.loads((staging / "file.json").read_text())
        seen.append((Path(os.readlink(f"/proc/self/fd/{fd}")).name, known["safe"]))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(part, "SYNC_INTERVAL", 0.0)
    file = part.Part(str(staging / "file"), "sum")
    file.begin(0, '"tag"', "")
    for _ in range(2):
        file.write(b"x" * 1000)
    assert seen == [
        ("file", 0), ("file.json", 1000), ("staging", 1000),
        ("file", 1000), ("file.json", 2000), ("staging", 2000),
    ]  # fmt: skip
    seen.clear()
    file.begin(500, "", "")
    assert seen == [("file.json", 500)]
    file.close()


def test_a_file_that_got_shorter_meanwhile_begins_anew(server: FileServer, staging: Path) -> None:
    (staging / "file").write_bytes(DATA)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (staging / "file.json").write_text(
        json.dumps({"content": "sum", "etag": "", "modified": "", "boot": boot})
    )
    error = fetch(f"{server.url}/small", staging, content="sum")[-1]["error"]
    assert error["after"] == 0
    assert fetch(f"{server.url}/small", staging, content="sum")[-1]["bytes"] == 30


def test_a_whole_file_is_not_asked_for_again(server: FileServer, staging: Path) -> None:
    url = f"{server.url}/image.tgz"
    fetch(url, staging, content="sum")
    assert fetch(url, staging, content="sum", size=len(DATA))[-1]["fetched"] == 0
    assert len(server.requests) == 1
    assert fetch(url, staging, content="sum")[-1]["fetched"] == 0  # 416: it ends where we are
    assert (staging / "file").read_bytes() == DATA


def test_the_part_of_another_content_is_not_gone_on_with(server: FileServer, staging: Path) -> None:
    for content in ("one", "two"):
        fetch(f"{server.url}/cut/1000/image.tgz", staging, content=content)
        assert (staging / "file").stat().st_size == 1000
    for state in (b"", b"nonsense", b"[]"):
        (staging / "file.json").write_bytes(state)
        fetch(f"{server.url}/cut/1000/image.tgz", staging, content="two")
        assert (staging / "file").stat().st_size == 1000


# ---- who asks, and whom is believed


def authorizations(server: FileServer) -> list[str]:
    return [headers.get("Authorization", "") for _, _, headers in server.requests]


def test_credentials_are_sent(server: FileServer, staging: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-a-file\n")
    url = f"{server.url}/private/image.tgz"
    for given in (
        {"type": "bearer", "value": "abc"},
        {"type": "bearer", "file": str(tmp_path / "token")},
        {"type": "basic", "user": "me", "value": "pass:word"},
    ):
        assert fetch(url, staging, credentials=given)[-1]["bytes"] == len(DATA)
    fetch(url.replace("//", "//me:pass%3Aword@"), staging)
    basic = "Basic bWU6cGFzczp3b3Jk"
    assert authorizations(server) == ["Bearer abc", "Bearer from-a-file", basic, basic]


def test_a_secret_that_cannot_be_read_is_named(server: FileServer, staging: Path, tmp_path: Path) -> None:
    given = {"type": "bearer", "file": str(tmp_path / "absent")}
    why = refusal(f"{server.url}/small", staging, credentials=given)
    assert why == f"the secret in {tmp_path}/absent cannot be read: No such file or directory"
    (tmp_path / "absent").write_text("two\nlines")
    assert "is not one line of text" in refusal(f"{server.url}/small", staging, credentials=given)


def test_credentials_go_to_nobody_else(server: FileServer, staging: Path) -> None:
    other = FileServer(server.directory).start()
    try:
        given = {"type": "bearer", "value": "abc"}
        there = f"{other.url}/redirect-to?{server.url}/small"
        fetch(f"{server.url}/redirect-to?{there}", staging, credentials=given)
        assert authorizations(server) == ["Bearer abc", "Bearer abc"]
        assert authorizations(other) == [""]
    finally:
        other.stop()


def certificates(where: Path) -> tuple[str, str]:
    """Make a certificate for 127.0.0.1 that is its own authority; return (certificate, key)."""
    certificate, key = str(where / "cert.pem"), str(where / "key.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make certificates")
def test_only_a_certificate_of_a_trusted_authority_is_accepted(
    server: FileServer, staging: Path, tmp_path: Path
) -> None:
    certificate, key = certificates(tmp_path)
    protected = FileServer(server.directory, certificate=(certificate, key, certificate)).start()
    try:
        url = f"{protected.url}/small"
        error = fetch(url, staging)[-1]["error"]
        assert "the server's certificate is not accepted: self" in error["message"]
        assert "after" not in error
        mine = {"ca_file": certificate}
        assert "error" in fetch(url, staging, tls=mine)[-1]  # it wants one of ours too
        own = {**mine, "client_cert": certificate, "client_key": key}
        assert fetch(url, staging, tls=own)[-1]["bytes"] == 30
        away = f"{protected.url}/redirect-to?{server.url}/small"
        why = refusal(away, staging, tls=own)
        assert why == f"redirected from https to {server.url}/small, which is not protected"
        assert not server.requests
    finally:
        protected.stop()
    why = refusal(f"{server.url}/small", staging, tls={"ca_file": "/nowhere"})
    assert why == "the certificate file /nowhere cannot be used: No such file or directory"


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make certificates")
def test_the_systems_authorities_are_read_once_https_is_met(
    server: FileServer, staging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = certificates(tmp_path)
    protected = FileServer(server.directory, certificate=(certificate, key, "")).start()
    try:
        there = f"{server.url}/redirect-to?{protected.url}/small"
        assert "certificate is not accepted" in refusal(there, staging)
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        assert fetch(there, staging)[-1]["bytes"] == 30
    finally:
        protected.stop()
    for name in transport._AUTHORITIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(transport, "_context", lambda tls: pytest.fail("nobody needs them"))
    assert b"".join(transport.Connection({"url": server.url}).get(f"{server.url}/small").chunks)


def test_a_proxy_of_the_environment_is_asked(
    server: FileServer, staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = {"url": "http://images.invalid/small", "part": str(staging / "file")}
    with start(request, http_proxy=server.url) as program:
        program.communicate(timeout=30)
    assert [path for _, path, _ in server.requests] == ["http://images.invalid/small"]


# ---- without rights


@pytest.mark.root
def test_root_is_given_up_before_the_first_byte(server: FileServer, staging: Path) -> None:
    staging.chmod(0o700)
    request = {"url": f"{server.url}/slow/1000/image.tgz", "part": str(staging / "file"), "user": "nobody"}
    with start(request) as program:
        while not (staging / "file").exists() or not (staging / "file").stat().st_size:
            time.sleep(0.005)
        status = Path(f"/proc/{program.pid}/status").read_text()
        program.kill()
        program.communicate(timeout=30)
    nobody = pwd.getpwnam("nobody")
    uids, gids = (
        f"{name}:\t" + "\t".join([str(number)] * 4)
        for name, number in (("Uid", nobody.pw_uid), ("Gid", nobody.pw_gid))
    )
    assert uids in status
    assert gids in status
    assert "CapEff:\t0000000000000000" in status
    assert "CapPrm:\t0000000000000000" in status
    assert f"Groups:\t{nobody.pw_gid} " in status


@pytest.mark.root
def test_an_unknown_user_to_download_as_is_named(server: FileServer, staging: Path) -> None:
    error = fetch(f"{server.url}/small", staging, user="no-such-user")[-1]["error"]
    assert error["message"] == "cannot become user 'no-such-user': no such user"
    assert not server.requests
