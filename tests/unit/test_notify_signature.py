"""The signature of Standard Webhooks."""

from __future__ import annotations

import pytest

from gateway.notify import signature

# of the test suite of the specification's own libraries
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SIGNED = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


def test_a_message_is_signed_as_in_the_specification() -> None:
    made = signature.headers(SIGNED["webhook-id"], 1614265330, b'{"test": 2432232314}', signature.key(SECRET))
    assert made == SIGNED


def test_a_secret_without_the_prefix_is_its_text() -> None:
    assert signature.key("no base64 ü") == "no base64 ü".encode()


def test_without_a_secret_there_is_no_signature() -> None:
    assert set(signature.headers("msg_1", 1, b"{}", None)) == {"webhook-id", "webhook-timestamp"}


@pytest.mark.parametrize("secret", ["whsec_", "whsec_a", "whsec_ü", "whsec_a b="])
def test_a_prefix_without_base64_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ValueError, match=r"^expected base64 after whsec_$"):
        signature.key(secret)
