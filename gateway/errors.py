"""Every error of the service, one tree. A run that fails is no error: it is an outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class GatewayError(Exception):
    """The root: its text names the thing, the value and what to do. `exit_code` is that of a command that it ends."""

    exit_code: ClassVar[int] = 1


class ConfigError(GatewayError):
    """The configuration is wrong: the service does not start."""

    exit_code: ClassVar[int] = 78  # EX_CONFIG, which systemd is told not to restart on


class StateError(GatewayError):
    """The state directory can't be used: taken by another gateway, not writable, or made by a newer version."""

    exit_code: ClassVar[int] = 73  # EX_CANTCREAT


class StateBusyError(StateError):
    """The state directory can't be used now: its disk is full, or another program holds it."""

    exit_code: ClassVar[int] = 75  # EX_TEMPFAIL, on which systemd starts it again


class TokenError(GatewayError):
    """A token can't be made or revoked."""


class HeldError(GatewayError):
    """What a job needs is held by another, or another waits for it that came first: `job`, its id."""

    def __init__(self, job: str) -> None:
        super().__init__(f"Job {job} holds, or waits for, what this one needs; wait for its end or cancel it.")
        self.job = job


class RequestError(GatewayError):
    """A request that is refused. `status` is its HTTP status; `code` never changes once published."""

    status: ClassVar[int]
    code: str
    headers: Mapping[str, str] = {}
    details: Mapping[str, object] = {}


class UnauthorizedError(RequestError):
    """No token, or none that is good."""

    status = 401
    code = "unauthorized"
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


class InsufficientScopeError(RequestError):
    """The token is good, but not for this."""

    status = 403
    code = "insufficient_scope"


class PipelinesDisabledError(RequestError):
    """Triggers are off."""

    status = 403
    code = "pipelines_disabled"

    def __init__(self) -> None:
        super().__init__(
            "Pipelines are disabled. Set PIPELINE_ENABLED=true, or `enabled: true` in gateway.yaml, and restart."
        )


class ForeignOriginError(RequestError):
    """A web page of somebody else's sent it."""

    status = 403
    code = "foreign_origin"


class BadRequestError(RequestError):
    """The request is not what the API takes."""

    status = 400

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class UnknownJobError(RequestError):
    """No such job, or it left the list."""

    status = 404
    code = "unknown_job"


class UnknownTargetError(RequestError):
    """No such fabric, project or pipeline, or not there."""

    status = 404

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class UnknownPathError(RequestError):
    """Nothing is served there."""

    status = 404
    code = "unknown_path"


class MethodNotAllowedError(RequestError):
    """Something is served there, but not with this method."""

    status = 405
    code = "method_not_allowed"


class SlowBodyError(RequestError):
    """The body did not arrive in time."""

    status = 408
    code = "slow_body"
    headers: Mapping[str, str] = {"Connection": "close"}


class ConflictError(RequestError):
    """A resource that the job needs is held by another."""

    status = 409
    code = "already_running"

    def __init__(self, message: str, *, conflict: Mapping[str, object], retry_after: int) -> None:
        super().__init__(message)
        self.details = {"conflict": conflict}
        self.headers = {"Retry-After": str(retry_after)}


class BodyTooLargeError(RequestError):
    """The body is over its limit."""

    status = 413
    code = "body_too_large"


class UnsupportedTypeError(RequestError):
    """The body is not JSON by its own word."""

    status = 415
    code = "unsupported_type"


class MisdirectedError(RequestError):
    """The Host header names somebody else."""

    status = 421
    code = "misdirected"


class TooManyTriggersError(RequestError):
    """One token triggers faster than it may."""

    status = 429
    code = "too_many_triggers"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(retry_after)}


class DrainingError(RequestError):
    """The service is stopping."""

    status = 503
    code = "draining"
    headers: Mapping[str, str] = {"Retry-After": "5"}


class OverloadedError(RequestError):
    """More requests are underway than the service takes."""

    status = 503
    code = "overloaded"
    headers: Mapping[str, str] = {"Retry-After": "5"}


class QueueFullError(RequestError):
    """So many jobs wait for their turn that no more are taken."""

    status = 503
    code = "queue_full"
    headers: Mapping[str, str] = {"Retry-After": "60"}


class EngineError(RequestError):
    """The container engine doesn't answer, so nobody knows whether the job could run."""

    status = 503
    code = "engine_unavailable"
    headers: Mapping[str, str] = {"Retry-After": "30"}


class RepositoryUnavailableError(RequestError):
    """The repository of a project can't be reached or read now."""

    status = 503
    code = "repository_unavailable"
    headers: Mapping[str, str] = {"Retry-After": "30"}


class StorageError(RequestError):
    """The state directory can't take a new job now."""

    status = 507
    code = "storage_unavailable"
    headers: Mapping[str, str] = {"Retry-After": "60"}
