"""The state on the disk: the database, and the record in each job's folder."""
