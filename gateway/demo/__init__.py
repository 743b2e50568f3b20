"""The embedded lakehouse: a demo that works at once and a starter for one's own."""
