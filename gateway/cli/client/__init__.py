"""The commands for the jobs of a running gateway. The service imports none of them."""
