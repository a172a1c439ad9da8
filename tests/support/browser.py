# SPDX-License-Identifier: Apache-2.0
"""A real Chromium without a window, driven through the pipe of its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/; messages are JSON, each ended by a NUL byte.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

PATIENCE = 30.0
"""Seconds for an answer of the browser, and for a condition in a page to come true."""

_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # which root cannot have; it sees our own pages only
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "about:blank",
)

# it reads descriptor 3 and writes descriptor 4, whatever these are here
_START = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]
for i, fd in enumerate(pipes, 3):
    os.dup2(fd, i)
os.execvp("chromium", ["chromium", *sys.argv[3:]])
"""


class Browser:
    """One Chromium with a profile of its own."""

    def __init__(self) -> None:
        self._profile = tempfile.mkdtemp(prefix="maestro-test-chromium-")
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()
        profile = f"--user-data-dir={self._profile}"
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, str(commands), str(answers), profile, *_OPTIONS],
            pass_fds=(commands, answers),
            env={**os.environ, "HOME": self._profile},  # it keeps a few things there too
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._rest = b""
        self._messages: deque[dict[str, Any]] = deque()
        self._last = 0
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        """End it and remove its profile."""
        try:
            self.command("Browser.close")
        except (AssertionError, OSError):
            self._process.kill()
        self._process.wait(PATIENCE)
        os.close(self._out)
        os.close(self._in)
        shutil.rmtree(self._profile, ignore_errors=True)

    def command(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come meanwhile are kept."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == self._last:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _receive(self, deadline: float, what: str) -> dict[str, Any]:
        while not self._messages:
            ready = select.select([self._in], [], [], max(0, deadline - time.monotonic()))[0]
            data = os.read(self._in, 1 << 20) if ready else b""
            assert data, f"Chromium does not answer to {what}"
            *whole, self._rest = (self._rest + data).split(b"\0")
            self._messages += map(json.loads, whole)
        return self._messages.popleft()

    def page(self, url: str, width: int = 1280, height: int = 800, *, dark: bool = False) -> Page:
        """Open a page with a window of its own cookies and storage."""
        context = self.command("Target.createBrowserContext")["browserContextId"]
        target = self.command("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, context)
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            page.command(f"{domain}.enable")
        page.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.command("Emulation.setEmulatedMedia", features=[scheme])
        page.command("Page.navigate", url=url)
        page.until("document.readyState === 'complete'")
        return page


class Page:
    """One page of a browser."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context

    def close(self) -> None:
        """Close it and forget its storage."""
        self._browser.command("Target.disposeBrowserContext", browserContextId=self._context)

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command to this page."""
        return self._browser.command(method, self._session, **params)

    def resize(self, width: int, height: int) -> None:
        """Show it on a screen of this size; a narrow one is a phone's."""
        phone = width < 600
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    def js(self, expression: str) -> Any:
        """Return the value of an expression in the page, awaited if it is a promise."""
        found = self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, condition: str, timeout: float = PATIENCE) -> Any:
        """Return the value of a condition once it is true."""
        look = (
            "new Promise((done) => { const end = Date.now() + %d; const look = () => {"
            " let value; try { value = (%s); } catch (error) { value = null; }"
            " if (value instanceof Node) value = true;"
            " if (value || Date.now() > end) done(value); else setTimeout(look, 20); }; look(); })"
        )
        value = self.js(look % (timeout * 1000 - 2000, condition))
        assert value, f"never came true: {condition}\n{self.js('document.body.innerText')}"
        return value

    def click(self, selector: str) -> None:
        """Click the middle of an element with the mouse, as a person would: what covers it gets the click."""
        self.until(f"document.querySelector({json.dumps(selector)})")
        self.js(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        box, before = self._box(selector), None
        while box != before:  # a page that is being filled moves under the hand
            box, before = self._box(selector), box
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def _box(self, selector: str) -> Any:
        """Return where an element is once the page was drawn."""
        element = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()"
        return self.js(
            f"new Promise((done) => requestAnimationFrame(() => setTimeout(() => done({element}))))"
        )

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.command("Input.insertText", text=text)

    def errors(self) -> list[str]:
        """Return what the page threw, and what the browser refused to do for it."""
        self.js("0")  # whatever came before this answer is known then
        found = []
        for event in self._browser.events:
            if event.get("sessionId") != self._session:
                continue
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(event["params"]["exceptionDetails"]))
            entry = event["params"].get("entry", {})
            if event["method"] == "Log.entryAdded" and entry["source"] not in ("network",):
                found.append(entry["text"])
        return found

    def screenshot(self, path: Path) -> None:
        """Write what is on the screen as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))
