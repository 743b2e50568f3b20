"""Commands that outlive the gateway: each runs under a shim of its own."""
