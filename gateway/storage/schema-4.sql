-- What lists of jobs are filtered by. created_at: microseconds, as the APIs show it. seconds: without those in the queue.
ALTER TABLE job ADD COLUMN fabric TEXT NOT NULL DEFAULT '';
ALTER TABLE job ADD COLUMN status TEXT NOT NULL DEFAULT '';
ALTER TABLE job ADD COLUMN outcome TEXT;
ALTER TABLE job ADD COLUMN created_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN seconds REAL;

UPDATE job SET
    fabric = json_extract(record, '$.fabric'),
    status = CASE json_extract(record, '$.state.kind')
        WHEN 'queued' THEN 'queued'
        WHEN 'ended' THEN json_extract(record, '$.state.ending.kind')
        ELSE 'running'
    END,
    outcome = CASE
        WHEN json_extract(record, '$.state.ending.reason') = 'cancelled' THEN 'cancelled'
        WHEN json_extract(record, '$.state.ending.kind') = 'failed' THEN 'failed'
        WHEN json_extract(record, '$.state.ending.exit_code') <> 0 THEN 'errors'
        WHEN json_extract(record, '$.state.ending.kind') = 'completed' THEN iif(
            EXISTS (SELECT 1 FROM json_each(record, '$.steps') WHERE json_extract(value, '$.progress.warn') > 0),
            'warnings',
            'succeeded'
        )
    END,
    created_at = CAST(round(json_extract(record, '$.created.wall') * 1000000) AS INTEGER),
    seconds = ended_at - coalesce(
        (SELECT min(json_extract(value, '$.started.wall')) FROM json_each(record, '$.steps')),
        json_extract(record, '$.created.wall')
    );
UPDATE job SET checksum = checksum(
    id, state, ended_at, ended_uptime, ended_boot, record, project, pipeline, fabric, status, outcome, created_at, seconds
);

-- The whole of a list's search is in this index, so that one with any filter reads none of the records that it skips.
CREATE INDEX job_listed ON job (seq, status, outcome, project, pipeline, fabric, created_at);
CREATE INDEX job_usual ON job (project, pipeline, seq, seconds) WHERE status = 'completed';
