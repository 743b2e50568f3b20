"""Runs one step of a job: what to run, where, and how it ended.

Knows no HTTP, no database and no job; the gateway drives it.
"""
