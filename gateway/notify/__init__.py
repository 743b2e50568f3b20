"""Tells receivers of jobs, from the outbox of the storage."""
