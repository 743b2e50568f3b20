"""Mirrors, checkouts and refs of git repositories."""
