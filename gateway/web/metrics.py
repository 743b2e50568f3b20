"""The metrics of the service, as Prometheus reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import accumulate

from aiohttp import web

from gateway.errors import StorageError
from gateway.jobs.metrics import BUCKETS, JobMetrics
from gateway.jobs.retention import Retention
from gateway.jobs.service import JobService
from gateway.model.job import JobOutcome, Queued
from gateway.notify.delivery import Courier
from gateway.web import SERVICE
from gateway.web.jobs_api.events import FOLLOWERS
from gateway.web.openapi.operation import Reply, operation
from gateway.web.server.traffic import Traffic

TRAFFIC = web.AppKey("traffic", Traffic)
RETENTION = web.AppKey("retention", Retention)
COURIER = web.AppKey("courier", Courier)
_PREFIX = "pipeline_gateway_"
_PIPELINE = ("project", "pipeline")

Values = tuple[str, ...]  # of labels


@dataclass(frozen=True, slots=True)
class _Gauge:
    """A metric whose values go up and down. samples: each with the values of its labels."""

    name: str
    help: str
    labels: Values
    samples: Sequence[tuple[Values, float]]


@dataclass(frozen=True, slots=True)
class _Counter:
    """A metric whose values only grow, from 0 at the start of the service."""

    name: str
    help: str
    labels: Values
    samples: Sequence[tuple[Values, float]]


@dataclass(frozen=True, slots=True)
class _Histogram:
    """A metric of durations: for each sample the number in each bucket, and the sum."""

    name: str
    help: str
    labels: Values
    samples: Sequence[tuple[Values, list[int], float]]


_Metric = _Gauge | _Counter | _Histogram


@operation("getMetrics", {200: Reply(str, "text/plain")})
async def get(request: web.Request) -> web.Response:
    """All metrics. What the loop does for them is bounded by the configuration; the text is made in a thread."""
    app = request.app
    families = [*_jobs(app[SERVICE]), *_of_requests(app[TRAFFIC], len(app[FOLLOWERS])), *_state(app[RETENTION])]
    families += [metric async for metric in _of_notifications(app[COURIER])]
    text, content_type = await asyncio.to_thread(_rendered, families)
    return web.Response(body=text, headers={"Content-Type": content_type})


ROUTES = (web.get("/metrics", get),)


def _jobs(service: JobService) -> Iterator[_Metric]:
    counted, active = service.metrics, service.active()
    waiting = sum(isinstance(job.state, Queued) for job in active)
    yield from _ended(counted)
    yield _Gauge("jobs_active", "Jobs that have not ended.", (), [((), len(active))])
    yield _Gauge("jobs_queued", "Jobs among the active ones that wait for their turn.", (), [((), waiting)])
    configured = [(info.project, info.name) for info in service.pipelines()]
    good = [(key, counted.last_success[key]) for key in configured if key in counted.last_success]
    about = "When the latest job that succeeded, perhaps with warnings, has ended; none where no record tells of one."
    yield _Gauge("last_success_timestamp_seconds", about, _PIPELINE, good)
    paused = [(key, float(service.pauses.get(*key) is not None)) for key in configured]
    yield _Gauge("pipeline_paused", "1 while triggers of the pipeline are refused.", _PIPELINE, paused)
    printed = "Output that ended jobs have printed."
    yield _Counter("output_bytes", printed, (), [((), counted.output_bytes)])
    dropped = "Output of ended jobs that was removed while they ran, to keep it under output_cap."
    yield _Counter("output_dropped_bytes", dropped, (), [((), counted.dropped_bytes)])


def _ended(counted: JobMetrics) -> Iterator[_Metric]:
    outcomes = [
        ((*key, str(outcome)), float(counts.outcomes[outcome]))
        for key, counts in counted.pipelines.items()
        for outcome in JobOutcome
    ]
    yield _Counter("jobs", "Jobs that have ended, by outcome.", (*_PIPELINE, "outcome"), outcomes)
    durations = [(key, list(counts.durations), counts.seconds) for key, counts in counted.pipelines.items()]
    about = "How long jobs ran, from the begin of the first step to the end."
    yield _Histogram("job_duration_seconds", about, _PIPELINE, durations)


def _of_requests(traffic: Traffic, followers: int) -> Iterator[_Metric]:
    answered = [(labels, float(number)) for labels, number in traffic.requests.items()]
    about = "Answers, by method, route and class of status."
    yield _Counter("requests", about, ("method", "route", "status"), answered)
    refused = [((code,), float(number)) for code, number in traffic.refusals.items()]
    yield _Counter("refusals", "Requests that were refused, by the code of the refusal.", ("code",), refused)
    yield _Gauge("followers", "Clients that follow the events of a job.", (), [((), followers)])


async def _of_notifications(courier: Courier) -> AsyncIterator[_Metric]:
    try:
        waiting = await courier.waiting()
    except StorageError:  # the other metrics, which say so, must not be missing too
        waiting = {}
    about = "Messages that a receiver does not have yet."
    yield _Gauge("notifications_waiting", about, ("receiver",), [((to,), float(n)) for to, n in waiting.items()])
    attempts = [
        ((to, result), float(courier.attempts[to, result])) for to in waiting for result in ("delivered", "failed")
    ]
    about = "Attempts to deliver a message."
    yield _Counter("notification_attempts", about, ("receiver", "result"), attempts)


def _state(retention: Retention) -> Iterator[_Metric]:
    size = [] if retention.size is None else [((), float(retention.size))]
    yield _Gauge("state_size_bytes", "Size of the state directory, as of the last minute.", (), size)
    yield _Gauge("state_cap_bytes", "Size from which on files of ended jobs are removed.", (), [((), retention.cap)])
    version = (metadata.version("pipeline-gateway"),)
    yield _Gauge("build_info", "Always 1, with the version of the gateway.", ("version",), [(version, 1)])


def _rendered(metrics: Sequence[_Metric]) -> tuple[bytes, str]:
    """The metrics as text, and its content type."""
    # here, since a service that starts again has no time for it
    from prometheus_client import CollectorRegistry, exposition
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector

    class Collected(Collector):
        def collect(self) -> Iterator[Metric]:
            yield from map(family, metrics)

    def family(metric: _Metric) -> Metric:
        name = f"{_PREFIX}{metric.name}"
        if isinstance(metric, _Histogram):
            histogram = HistogramMetricFamily(name, metric.help, labels=metric.labels)
            for values, numbers, total in metric.samples:
                bounds = [*map(str, map(float, BUCKETS)), "+Inf"]
                histogram.add_metric(values, list(zip(bounds, accumulate(numbers), strict=True)), total)
            return histogram
        kind = CounterMetricFamily if isinstance(metric, _Counter) else GaugeMetricFamily
        made = kind(name, metric.help, labels=metric.labels)
        for values, number in metric.samples:
            made.add_metric(values, number)
        return made

    registry = CollectorRegistry()
    registry.register(Collected())
    return exposition.generate_latest(registry), exposition.CONTENT_TYPE_PLAIN_0_0_4
