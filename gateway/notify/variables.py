"""The variables that have the addresses and secrets of webhooks. Nothing that is said of them has a value in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from yarl import URL

from gateway.errors import ConfigError
from gateway.notify import signature
from gateway.settings.notify import WebhookSettings
from gateway.settings.settings import Settings
from runners.mask import Mask

_EXAMPLES = {
    "url_variable": "https://hooks.example/T0/B0/key",
    "secret_variable": "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=",
}


def must_be_right(settings: Settings, environment: Mapping[str, str]) -> None:
    """Raises ConfigError with a line for each variable that is not set, or whose value is wrong."""
    problems = [
        f"notify.{n}.{problem}"
        for n, one in enumerate(settings.notify)
        if one.webhook is not None
        for problem in _problems(one.webhook, environment)
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def mask(settings: Settings, environment: Mapping[str, str]) -> Mask:
    """Hides all secrets of the configuration, and the parts of addresses that an answer or an error may quote alone."""
    known = settings.mask(environment)
    webhooks = (one.webhook for one in settings.notify if one.webhook is not None)
    addresses = filter(None, (environment.get(one.url_variable, "").strip() for one in webhooks))
    parts = (part for address in addresses for part in _secret_parts(URL(address)))
    return Mask(("*",), known.values).with_secrets_of({str(n): part for n, part in enumerate(parts)})


def _problems(webhook: WebhookSettings, environment: Mapping[str, str]) -> Iterator[str]:
    for key, example in _EXAMPLES.items():
        name = getattr(webhook, key)
        if name is None:
            continue
        value = environment.get(name, "").strip()
        if not value:
            yield f"webhook.{key}: the variable {name} is not set: put `{name}={example}` into the environment"
        elif (why := _wrong(key, value, webhook.preset)) is not None:
            yield f"webhook.{key}: the value of {name} is wrong: {why}, such as `{name}={example}`"


def _wrong(key: str, value: str, preset: str | None) -> str | None:
    """What is expected instead of a value; None where it is right."""
    if key == "secret_variable":
        try:
            signature.key(value)
        except ValueError as error:
            return str(error)
        return None
    try:
        url = URL(value)
    except ValueError:
        return "expected an address"
    if url.scheme not in ("http", "https") or not url.host:
        return "expected an address that begins with https:// or http://"
    return "expected the address of a topic" if preset == "ntfy" and not url.name else None


def _secret_parts(url: URL) -> Iterator[str]:
    yield url.raw_path_qs
    yield from (part for part in url.raw_parts if part != "/")
    yield from url.query.values()
    yield from filter(None, (url.password, url.raw_fragment))
