"""What a job is and how it lives."""
