"""Pipeline Gateway: start and follow the data pipelines of one server over HTTP."""
