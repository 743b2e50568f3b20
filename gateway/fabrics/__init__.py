"""What each step of a plan runs on one fabric, and what its end means."""
