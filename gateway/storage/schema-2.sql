-- Finds a row that was overwritten on the disk: SQLite's own checks cover the structure of pages, not the values.
ALTER TABLE job ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;

UPDATE job SET checksum = checksum(id, state, ended_at, ended_uptime, ended_boot, record);
