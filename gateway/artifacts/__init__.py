"""What the steps of jobs leave behind: kept, read, and understood as nodes."""
