# SPDX-License-Identifier: Apache-2.0
"""Variables of the daemon's file: what `{{NAME}}` stands for, and how `var_defs` defines it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from maestro_py.spec.substitute import substitute

PASSES = 3
"""Times a text is rendered, so that variables may be made of variables (upstream's number)."""

_ENV = re.compile(r"\$\{([^{}|]+)(?:\|([^{}]*))?\}")


class Renderer:
    """Fills variables into texts; `unknown` holds the names that nobody defined, which read as empty.

    kept: names that stay as they are written, because they are filled in later.
    """

    def __init__(self, variables: Mapping[str, str], kept: Collection[str] = ()) -> None:
        self.unknown: dict[str, None] = {}
        self._variables = variables
        self._kept = kept

    def __call__(self, text: str) -> str:
        """Return the text with every name filled in. Raises TooLong."""
        if "{{" not in text:
            return text
        for _ in range(PASSES):
            text = substitute(text, self._variables.get)
        return substitute(text, self._last)

    def _last(self, name: str) -> str | None:
        if name in self._kept:
            return None
        self.unknown[name] = None
        return ""


def from_environment(value: str, environ: Mapping[str, str]) -> str:
    """Return a value with each `${NAME}` and `${NAME|default}` taken from the environment."""
    return _ENV.sub(lambda match: environ.get(match[1].strip(), match[2] or ""), value)


def listed(names: Iterable[str]) -> str:
    """Return the warning about undefined names."""
    return f"undefined variables read as empty: {', '.join(sorted(names))}"
