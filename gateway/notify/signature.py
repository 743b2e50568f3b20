"""The signature of a webhook, by the specification of Standard Webhooks. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac

_PREFIX = "whsec_"


def key(secret: str) -> bytes:
    """The key of a secret: its base64 after `whsec_`, else its text. Raises ValueError."""
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        found = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError:
        found = b""
    if not found:
        raise ValueError(f"expected base64 after {_PREFIX}")
    return found


def headers(message_id: str, timestamp: int, body: bytes, signing_key: bytes | None) -> dict[str, str]:
    """The headers of a message, with its signature where there is a key."""
    given = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    if signing_key is not None:
        content = b".".join((message_id.encode(), str(timestamp).encode(), body))
        digest = hmac.digest(signing_key, content, hashlib.sha256)
        given["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return given
