"""What a job is: its values, its plan and what comes next. Pure."""
