-- A job's whole record is one JSON document; the other columns are for searching.
CREATE TABLE job (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    ended_at REAL,
    ended_uptime REAL,
    ended_boot TEXT,
    record TEXT NOT NULL
) STRICT;

CREATE INDEX job_active ON job (seq) WHERE state <> 'ended';
CREATE INDEX job_ended_by_uptime ON job (ended_boot, ended_uptime);
CREATE INDEX job_ended_by_clock ON job (ended_at);

-- The resources that an active job holds. The unique index keeps two jobs apart, also in the same millisecond.
CREATE TABLE claim (
    job TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    resource TEXT NOT NULL,
    phase TEXT NOT NULL CHECK (phase IN ('holds', 'over')),
    PRIMARY KEY (job, resource)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX claim_holder ON claim (resource) WHERE phase = 'holds';
