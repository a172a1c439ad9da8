# SPDX-License-Identifier: Apache-2.0
"""The dashboard: one page that needs nothing but the API.

It is read from its file for each request, so that it takes no memory while nobody looks. A nonce, new
each time, is all that may run or style it (https://www.w3.org/TR/CSP3/): markup that found its way into
the page, in a job's name or its output, stays text.
"""

from __future__ import annotations

import os

from maestro_py.daemon.messages import Response

_PAGE = os.path.join(os.path.dirname(__file__), "page.html")


def page() -> Response:
    """Return the page. It holds nothing secret, so that a browser can come to be asked for a token."""
    nonce = os.urandom(16).hex()
    with open(_PAGE, "rb") as file:
        body = file.read().replace(b'nonce="NONCE"', b'nonce="%b"' % nonce.encode())
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = (
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cache-control", "no-store"),
        ("vary", "accept"),
    )
    return Response(body=body, content_type="text/html; charset=utf-8", headers=headers)
