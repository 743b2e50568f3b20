-- The first answer to a request with an Idempotency-Key, which the same request gets again.
CREATE TABLE answer (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    path TEXT NOT NULL,
    token TEXT NOT NULL,
    key TEXT NOT NULL,
    asked TEXT NOT NULL,
    job INTEGER NOT NULL REFERENCES job (seq) ON DELETE CASCADE,
    at REAL NOT NULL,
    uptime REAL NOT NULL,
    boot TEXT NOT NULL,
    status INTEGER NOT NULL,
    location TEXT,
    body TEXT NOT NULL,
    UNIQUE (path, token, key)
) STRICT;

CREATE INDEX answer_of_job ON answer (job);
CREATE INDEX answer_by_uptime ON answer (boot, uptime);
CREATE INDEX answer_by_clock ON answer (at);

-- Triggers that were refused because of a conflict or a full queue. created_at: microseconds. conflict: a JSON object.
CREATE TABLE refusal (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at INTEGER NOT NULL,
    project TEXT NOT NULL,
    fabric TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    code TEXT NOT NULL,
    error TEXT NOT NULL,
    conflict TEXT
) STRICT;
-- What is to be told to others about a job: a row for each message to one receiver. Rows are written in the commit that
-- ends the job, and stay as long as its record.
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, -- the same at each attempt, and made of what the message is about
    kind TEXT NOT NULL,
    receiver TEXT NOT NULL,
    job INTEGER NOT NULL REFERENCES job (seq) ON DELETE CASCADE,
    outcome TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'delivered', 'given_up')),
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    created_at REAL NOT NULL,
    created_uptime REAL NOT NULL,
    created_boot TEXT NOT NULL
) STRICT;

CREATE INDEX outbox_waiting ON outbox (kind, receiver, attempts, seq) WHERE state = 'waiting';
CREATE INDEX outbox_of_job ON outbox (job);

-- Which pipelines a receiver knows to be late. It outlives the records of the jobs, so that each is told once.
CREATE TABLE late (
    receiver TEXT NOT NULL,
    project TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    PRIMARY KEY (receiver, project, pipeline)
) STRICT, WITHOUT ROWID;

-- When each pipeline was good last.
CREATE INDEX job_good ON job (project, pipeline, seq) WHERE outcome IN ('succeeded', 'warnings');
