"""How the world talks to the service: each published API is a thin skin over `gateway.jobs.service`."""
