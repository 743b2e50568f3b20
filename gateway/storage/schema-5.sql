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
