"""The errors of the service, in one tree. A run that fails is an outcome, not an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class GatewayError(Exception):
    """The root: its text names the thing, the value and what to do. `exit_code` is that of a command that it ends."""

    exit_code: ClassVar[int] = 1


class ConfigError(GatewayError):
    """The configuration is wrong, so the service does not start."""

    exit_code: ClassVar[int] = 78  # EX_CONFIG, after which the unit file keeps systemd from a restart


class StateError(GatewayError):
    """The state directory can't be used: another gateway runs on it, it is not writable, or a newer version made it."""

    exit_code: ClassVar[int] = 73  # EX_CANTCREAT


class StateBusyError(StateError):
    """The state directory can't be used now: its disk is full, or another program holds it."""

    exit_code: ClassVar[int] = 75  # EX_TEMPFAIL, after which systemd starts the service again


class TokenError(GatewayError):
    """A token can't be made or revoked."""


class HeldError(GatewayError):
    """Another job, `job` is its id, holds a resource that a job needs, or waited for it first."""

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
    """The request has no valid token."""

    status = 401
    code = "unauthorized"
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


class InsufficientScopeError(RequestError):
    """The token is valid, but its scope does not include this."""

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
    """A web page of another origin sent the request."""

    status = 403
    code = "foreign_origin"


class BadRequestError(RequestError):
    """The request does not fit the API."""

    status = 400

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class UnknownJobError(RequestError):
    """There is no such job, or it is no longer in the list."""

    status = 404
    code = "unknown_job"


class UnknownTargetError(RequestError):
    """There is no such fabric, project or pipeline, or not for this request."""

    status = 404

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class UnknownPathError(RequestError):
    """The path is not served."""

    status = 404
    code = "unknown_path"


class MethodNotAllowedError(RequestError):
    """The path is served, but not with this method."""

    status = 405
    code = "method_not_allowed"


class SlowBodyError(RequestError):
    """The body did not arrive in time."""

    status = 408
    code = "slow_body"
    headers: Mapping[str, str] = {"Connection": "close"}


class ConflictError(RequestError):
    """A resource that the job needs is held: by another job, or by a container from outside the gateway."""

    status = 409
    code = "already_running"

    def __init__(self, message: str, *, conflict: Mapping[str, object], retry_after: int) -> None:
        super().__init__(message)
        self.conflict = conflict
        self.details = {"conflict": conflict}
        self.headers = {"Retry-After": str(retry_after)}


class AnsweredError(GatewayError):
    """A request with the same Idempotency-Key and the same body was answered before."""


class ReusedKeyError(RequestError):
    """The Idempotency-Key of a request was used for another body."""

    status = 422
    code = "idempotency_key_reused"


class PausedError(RequestError):
    """A person has paused the pipeline."""

    status = 409
    code = "paused"


class RetryRefusedError(RequestError):
    """A job can't be retried so."""

    status = 409

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class BodyTooLargeError(RequestError):
    """The body is larger than the limit."""

    status = 413
    code = "body_too_large"


class UnsupportedTypeError(RequestError):
    """The Content-Type of the body is not JSON."""

    status = 415
    code = "unsupported_type"


class MisdirectedError(RequestError):
    """The Host header names another host."""

    status = 421
    code = "misdirected"


class TooManyTriggersError(RequestError):
    """A token triggers faster than its rate allows."""

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
    """As many requests are active as the service takes."""

    status = 503
    code = "overloaded"
    headers: Mapping[str, str] = {"Retry-After": "5"}


class QueueFullError(RequestError):
    """The queue is full."""

    status = 503
    code = "queue_full"
    conflict: None = None  # no other job alone is in the way
    headers: Mapping[str, str] = {"Retry-After": "60"}


class EngineError(RequestError):
    """The container engine doesn't answer, so it is unknown whether the job could run."""

    status = 503
    code = "engine_unavailable"
    headers: Mapping[str, str] = {"Retry-After": "30"}


class RepositoryUnavailableError(RequestError):
    """The repository of a project can't be reached or read now."""

    status = 503
    code = "repository_unavailable"
    headers: Mapping[str, str] = {"Retry-After": "30"}


class StorageError(RequestError):
    """The state directory can't store a job now."""

    status = 507
    code = "storage_unavailable"
    headers: Mapping[str, str] = {"Retry-After": "60"}
