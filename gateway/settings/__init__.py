"""gateway.yaml and the environment as frozen models."""
