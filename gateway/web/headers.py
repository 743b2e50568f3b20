"""What every answer carries, whoever made it."""

from __future__ import annotations

from collections.abc import Mapping

# A browser runs, frames, stores, guesses and passes on nothing of an answer; a page says itself what it needs besides.
SECURITY_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}
