-- What tells a row that was overwritten on the disk from one that was written: SQLite's own checks know pages, not words.
ALTER TABLE job ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;

UPDATE job SET checksum = checksum(id, state, ended_at, ended_uptime, ended_boot, record);
