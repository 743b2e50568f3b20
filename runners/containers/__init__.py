"""Where a step runs: in containers of a compose project."""
