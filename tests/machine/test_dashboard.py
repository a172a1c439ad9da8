# SPDX-License-Identifier: Apache-2.0
"""The dashboard in a real Chromium: what a person sees of jobs, and does to them."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterator

import pytest
from support.browser import Browser, Page
from support.daemon import PROJECT, Daemon
from support.documents import document, job

EVIL = "<script>window.pwned=1</script>"
EAGER = {"restart": True, "restart_backoff": {"initial": 0.3, "max": 0.3, "jitter": 0}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not shutil.which("chromium"):
        pytest.skip("needs Chromium")
    started = Browser()
    yield started
    started.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Site:
    """A daemon with a door on TCP."""

    def __init__(self, daemon: Daemon, port: int) -> None:
        self.daemon = daemon
        self.port = port
        self.url = f"http://127.0.0.1:{port}/"

    @property
    def token(self) -> str:
        return (self.daemon.root / "state" / "http.token").read_text().strip()

    def get(self, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()


@pytest.fixture
def make_site(make_daemon: Callable[..., Daemon]) -> Callable[..., Site]:
    def make(config: str = "") -> Site:
        port = free_port()
        return Site(make_daemon(f"http_tcp: 127.0.0.1:{port}\n{config}"), port)

    return make


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Return a maker of pages; after the test none of them may have complained."""
    made: list[Page] = []

    def make(site: Site, width: int = 1280, height: int = 860, *, dark: bool = False) -> Page:
        page = browser.page(site.url, width, height, dark=dark)
        made.append(page)
        return page

    yield make
    for page in made:
        errors = page.errors()
        page.close()
        assert errors == []


def state_of(name: str) -> str:
    return f"document.querySelector('[data-job={json.dumps(name)}] .pill').textContent"


def unlock(page: Page, site: Site) -> None:
    page.click("#key")
    page.until("document.activeElement.id === 'token'")
    page.type(site.token)
    page.click("#access .main")
    page.until("document.querySelector('#key').textContent === 'Unlocked'")


def picture(page: Page, name: str) -> None:
    """Leave a picture for people to look at, in a checkout of one's own."""
    if os.access(PROJECT, os.W_OK):
        page.screenshot(PROJECT / "build" / "dashboard" / f"{name}.png")


# the page as it is sent


def test_the_page_is_one_small_file_that_asks_nobody_else(site: Site) -> None:
    answer, body = site.get("/", Accept="text/html")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert len(body) < 60_000
    addresses = set(re.findall(rb"(?:https?:)?//[a-z][a-z0-9.-]*[^\s\"']*", body))
    assert {a for a in addresses if b"www.w3.org" not in a and not a.startswith(b"// ")} == set()
    assert not re.search(rb"\son[a-z]+=|<link[^>]+stylesheet|<script[^>]+src|innerHTML|eval\(", body)


def test_nothing_runs_but_what_bears_the_nonce_of_this_answer(site: Site) -> None:
    policies = set()
    for _ in range(2):
        answer, body = site.get("/", Accept="text/html")
        policy = answer.headers["Content-Security-Policy"]
        [nonce] = re.findall(r"script-src 'nonce-([0-9a-f]{32})'", policy)
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert body.count(f'nonce="{nonce}"'.encode()) == 2
        policies.add(policy)
    assert len(policies) == 2
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_program_that_asks_for_no_html_is_greeted_as_ever(site: Site) -> None:
    assert site.get("/")[1] == b"Welcome!\n"


# what a person sees


def test_a_job_is_seen_to_die_and_come_back_without_reloading(site: Site, visit: Callable[..., Page]) -> None:
    site.daemon.run(document(job("app", **EAGER)))
    page = visit(site)
    page.until(f"{state_of('app')} === 'RUNNING'")
    page.js(
        "window.seen = []; new MutationObserver(() => {"
        f" const now = {state_of('app')}; if (seen[seen.length - 1] !== now) seen.push(now); }})"
        ".observe(document.querySelector('#jobs'), {subtree: true, childList: true, characterData: true})"
    )
    os.kill(site.daemon.job("app")["pid"], signal.SIGKILL)
    page.until("seen.includes('RESTARTING') && seen[seen.length - 1] === 'RUNNING'")
    page.until("document.querySelector('[data-job=app] .times').textContent.includes('1 restart')")
    page.until("document.querySelector('#events').innerText.includes('RESTARTING: killed by SIGKILL')")


def test_jobs_come_and_go_as_documents_are_applied(site: Site, visit: Callable[..., Page]) -> None:
    page = visit(site)
    page.until("document.querySelector('#jobs').innerText.includes('No jobs yet')")
    site.daemon.run(document(job("app"), job("off", disabled=True)))
    page.until(f"{state_of('app')} === 'RUNNING' && {state_of('off')} === 'STOPPED'")
    page.until("document.querySelector('#plan').innerText.includes('start app')")
    assert "it is new" in page.js("document.querySelector('#plan').innerText")
    site.daemon.run(document(job("off", disabled=True)))
    page.until("!document.querySelector('[data-job=app]')")


def test_jobs_are_found_by_name_and_by_state(site: Site, visit: Callable[..., Page]) -> None:
    site.daemon.run(document(job("pump"), job("valve"), job("off", disabled=True)))
    page = visit(site)
    page.until("document.querySelectorAll('.job').length === 3")
    page.js("document.querySelector('#filter').focus()")
    page.type("PUM")
    page.until("document.querySelectorAll('.job').length === 1 && document.querySelector('[data-job=pump]')")
    page.js("document.querySelector('#filter').select()")
    page.type("no such")
    page.until("document.querySelector('#jobs').innerText === 'No job is like that.'")
    page.js("document.querySelector('#filter').select()")
    page.type("f")
    page.until("document.querySelectorAll('.job').length === 1 && document.querySelector('[data-job=off]')")
    page.js("document.querySelector('#filter').value = ''")
    page.click("#chips button:nth-child(2)")  # all, running, stopped
    page.until("document.querySelectorAll('.job').length === 2 && !document.querySelector('[data-job=off]')")


@pytest.mark.root
def test_memory_is_drawn_against_its_limit(site: Site, visit: Callable[..., Page]) -> None:
    site.daemon.run(document(job("app", cgroup={"mem_limit": "16M"}), job("free")))
    page = visit(site)
    page.until("/ of 16.0 MiB$/.test(document.querySelector('[data-job=app] .memory').innerText)")
    page.until("document.querySelector('[data-job=app] .now').getAttribute('d')")
    assert page.js("getComputedStyle(document.querySelector('[data-job=app] .limit')).display") != "none"


def test_the_log_of_a_job_is_followed(site: Site, visit: Callable[..., Page]) -> None:
    script = "echo first; while :; do test -e go && { rm go; echo second; }; sleep 0.05; done"
    site.daemon.run(document(job("app", script, working_dir=str(site.daemon.root))))
    page = visit(site)
    page.click("[data-job=app] .name")
    page.until("document.querySelector('#log').textContent === 'first\\n'")
    (site.daemon.root / "go").touch()
    page.until("document.querySelector('#log').textContent === 'first\\nsecond\\n'")
    page.until("document.querySelector('#why').innerText.includes('app')")
    page.click("#close")
    page.until("!document.querySelector('#sheet').open")


def test_what_jobs_are_called_and_print_stays_text(site: Site, visit: Callable[..., Page]) -> None:
    image = "<img src=x onerror=window.pwned=1>"
    site.daemon.run(document(job(EVIL, f"echo '{image}'; sleep 1000")))
    page = visit(site)
    page.until("document.querySelector('.job')")
    assert page.js("document.querySelector('.job .name').textContent") == EVIL
    page.click(".job .name")
    page.until(f"document.querySelector('#log').textContent.includes({json.dumps(image)})")
    page.until("document.querySelector('#events').children.length >= 2")
    assert page.js("document.querySelector('#log').innerText").strip() == image
    assert page.js("typeof window.pwned") == "undefined"
    assert page.js("document.scripts.length") == 1


def test_the_page_comes_back_with_the_daemon(site: Site, visit: Callable[..., Page]) -> None:
    site.daemon.run(document(job("app")))
    page = visit(site)
    page.until(f"{state_of('app')} === 'RUNNING'")
    page.js("window.mark = 1")
    before = site.daemon.job("app")["pid"]
    site.daemon.stop()
    page.until("document.querySelector('#live').textContent.includes('not connected')")
    site.daemon.start()
    page.until("document.querySelector('#live').className === 'on'")
    site.daemon.wait("app", lambda row: row["state"] == "RUNNING" and row["pid"] != before)
    page.until(f"{state_of('app')} === 'RUNNING'")
    assert page.js("window.mark") == 1


# what a person may do


def test_without_a_token_nothing_can_be_done(site: Site, visit: Callable[..., Page]) -> None:
    site.daemon.run(document(job("app")))
    page = visit(site)
    page.until(f"{state_of('app')} === 'RUNNING'")
    assert page.js("[...document.querySelectorAll('.acts')].every((box) => box.hidden)")
    assert page.js("fetch('/v1/jobs/app/stop', {method: 'POST'}).then((answer) => answer.status)") == 401
    assert site.daemon.job("app")["state"] == "RUNNING"


def test_with_the_token_a_job_is_restarted_stopped_and_started(
    site: Site, visit: Callable[..., Page]
) -> None:
    site.daemon.run(document(job("app")))
    before = site.daemon.job("app")["pid"]
    page = visit(site)
    unlock(page, site)
    page.click("[data-job=app] [data-verb=restart]")
    page.until("document.querySelector('#said').textContent === 'restart app: done'")
    assert site.daemon.job("app")["pid"] not in (None, before)
    page.until("!document.querySelector('[data-job=app] [data-verb=stop]').disabled")
    page.click("[data-job=app] [data-verb=stop]")
    page.until(f"{state_of('app')} === 'STOPPED'")
    page.until("!document.querySelector('[data-job=app] [data-verb=start]').disabled")
    page.click("[data-job=app] [data-verb=start]")
    page.until(f"{state_of('app')} === 'RUNNING'")


def test_what_cannot_be_done_says_why(site: Site, visit: Callable[..., Page]) -> None:
    site.daemon.apply(document({"job": "app", "exec_cmd": "/absent/program"}))
    page = visit(site)
    unlock(page, site)
    page.click("[data-job=app] [data-verb=start]")
    page.until("document.querySelector('#said').textContent.startsWith('cannot start app')")


def test_a_wrong_token_is_refused_and_forgotten(site: Site, visit: Callable[..., Page]) -> None:
    page = visit(site)
    page.until("document.querySelector('#live').className === 'on'")
    page.click("#key")
    page.type("0123456789abcdef")
    page.click("#access .main")
    page.until("document.querySelector('#said').textContent.includes('not the daemon')")
    assert page.js("document.querySelector('#key').textContent") == "Read-only"
    assert page.js("sessionStorage.length") == 0
    unlock_again = "document.querySelector('#token').value === ''"
    page.until(unlock_again)


def test_where_nobody_may_look_without_it_the_page_asks_for_the_token(
    make_site: Callable[..., Site], visit: Callable[..., Page]
) -> None:
    site = make_site("http_anonymous: none\n")
    site.daemon.run(document(job("app")))
    assert site.get("/v1/status")[0].status == 401
    page = visit(site)
    page.until("document.activeElement.id === 'token'")
    assert "app" not in page.js("document.querySelector('#jobs').innerText")
    page.type(site.token)
    page.click("#access .main")
    page.until(f"{state_of('app')} === 'RUNNING'")


# how it looks


def test_it_fits_a_phone_and_everything_can_be_named(site: Site, visit: Callable[..., Page]) -> None:
    long = "a-name-that-is-far-too-long-for-the-width-of-any-telephone-there-is"
    site.daemon.run(document(job("app", "echo x; sleep 1000"), job(long), job(EVIL)))
    page = visit(site, 320, 640)
    page.until("document.querySelectorAll('.job').length === 3")
    page.until("document.querySelector('#live').className === 'on'")  # from then on nothing moves
    unlock(page, site)
    page.until("!document.querySelector('.acts').hidden")
    assert page.js("document.documentElement.scrollWidth") <= 320
    picture(page, "phone")
    page.click("[data-job=app] .name")
    page.until("document.querySelector('#log').textContent")
    assert page.js("document.documentElement.scrollWidth") <= 320
    picture(page, "phone-job")
    nodes = page.command("Accessibility.getFullAXTree")["nodes"]
    controls = [
        node
        for node in nodes
        if node.get("role", {}).get("value") in ("button", "textbox", "searchbox", "checkbox")
        and not node["ignored"]
    ]
    assert len(controls) >= 4
    assert [node for node in controls if not node["name"]["value"]] == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(site: Site, visit: Callable[..., Page], dark: bool) -> None:
    site.daemon.apply(document(job("app"), job("gone", "exit 1"), job("off", disabled=True)))
    page = visit(site, dark=dark)
    unlock(page, site)
    page.until(f"{state_of('gone')} === 'FAILED'")
    picture(page, f"desktop-{'dark' if dark else 'light'}")
    # WCAG 2.2, 1.4.3: 4.5 to 1
    weak = page.js(CONTRAST)
    assert weak == []


CONTRAST = """
(() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = numbers(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const weak = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || element.disabled || !element.checkVisibility()) continue;
    const both = [light(numbers(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
    if (ratio < 4.5) weak.push(`${element.tagName} ${element.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return weak;
})()
"""


def test_a_page_nobody_looks_at_lets_the_daemon_sleep(site: Site, visit: Callable[..., Page]) -> None:
    site.daemon.run(document(job("app", **EAGER)))
    page = visit(site)
    page.until("document.querySelector('#live').className === 'on'")
    page.js(
        "window.away = true; Object.defineProperty(document, 'hidden', {get: () => away});"
        " window.asked = 0; const real = fetch; window.fetch = (...all) => { asked++; return real(...all); };"
        " document.dispatchEvent(new Event('visibilitychange'))"
    )
    os.kill(site.daemon.job("app")["pid"], signal.SIGKILL)
    site.daemon.wait("app", lambda row: row["restarts"] == 1)
    page.js("new Promise((done) => setTimeout(done, 3300))")  # it would have asked by now
    assert page.js("asked") == 0
    page.js("away = false; document.dispatchEvent(new Event('visibilitychange'))")
    page.until("document.querySelector('[data-job=app] .times').textContent.includes('1 restart')")
    page.until("document.querySelector('#live').className === 'on'")
