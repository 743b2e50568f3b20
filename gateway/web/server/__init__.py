"""What every connection and every request passes before its route."""
