# SPDX-License-Identifier: Apache-2.0
"""What every test may use, and what a test needs that this machine may not have."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.daemon import Daemon

# a loaded machine is slow, not wrong
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


UMASK = os.umask(0o022)
os.umask(UMASK)


def pytest_runtest_teardown() -> None:
    os.umask(UMASK)  # the programs that some tests call here set their own


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))
        if item.get_closest_marker("node") and not shutil.which("node"):
            item.add_marker(pytest.mark.skip(reason="needs Node"))


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Return a maker of started daemons; all of them are ended after the test."""
    made: list[Daemon] = []

    def make(config: str = "", *, name: str = "device", env: dict[str, str] | None = None) -> Daemon:
        daemon = Daemon(tmp_path / name, config, env)
        made.append(daemon)
        return daemon.start()

    yield make
    for daemon in made:
        daemon.close()


@pytest.fixture
def public_path() -> Iterator[Path]:
    """Return a directory that every user may pass, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="maestro-test-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def make_public_daemon(public_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Return a maker of a started daemon that jobs and people of other users can reach."""
    made: list[Daemon] = []

    def make(config: str = "") -> Daemon:
        daemon = Daemon(public_path / "device", config)
        made.append(daemon)
        return daemon.start()

    yield make
    for daemon in made:
        daemon.close()


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    """Return a started daemon with nothing to run."""
    return make_daemon()
