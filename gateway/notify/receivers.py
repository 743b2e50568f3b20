"""The receivers of the configuration."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.fabrics import fabric
from gateway.notify import signature, variables
from gateway.notify.command import CommandReceiver
from gateway.notify.receiver import Receiver
from gateway.notify.webhook import Webhook
from gateway.settings.fabric import FabricSettings
from gateway.settings.notify import NotifySettings
from gateway.settings.settings import Settings


def make(settings: Settings, environment: Mapping[str, str]) -> Mapping[str, Receiver]:
    """The receivers by their names. Raises ConfigError where a variable is not set, or its value is wrong."""
    variables.must_be_right(settings, environment)
    return {one.to: _receiver(one, environment) for one in settings.notify}


def _receiver(settings: NotifySettings, environment: Mapping[str, str]) -> Receiver:
    webhook = settings.webhook
    if webhook is None:
        return CommandReceiver(settings.command, fabric.environment(FabricSettings(), environment))
    secret = None if webhook.secret_variable is None else environment[webhook.secret_variable].strip()
    signing_key = None if secret is None else signature.key(secret)
    return Webhook(environment[webhook.url_variable].strip(), signing_key, webhook.preset)
