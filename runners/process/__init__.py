"""Where a step runs: as processes of this host."""
