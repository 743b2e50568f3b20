"""How clients talk to the service: each API is a thin skin over `gateway.jobs.service`."""

from __future__ import annotations

from aiohttp import web

from gateway.jobs.service import JobService

SERVICE = web.AppKey("service", JobService)
