# SPDX-License-Identifier: Apache-2.0
"""The archives as a release has them, built once from this tree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from support.archives import build, only
from support.daemon import PROJECT


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Return the wheel and the source archive of this tree."""
    out = tmp_path_factory.mktemp("dist")
    build(PROJECT, out)
    return {"wheel": only(out, "*.whl"), "sdist": only(out, "*.tar.gz")}
