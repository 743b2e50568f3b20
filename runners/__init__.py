"""Runs one step of a job: its command, the place where it runs, and its outcome.

Has no HTTP, no database and no jobs: the gateway calls it.
"""
