"""The embedded lakehouse: a demo that runs at once, and the files to start a project from."""
