"""The command `pipeline-gateway`: a module for each group of its commands."""
