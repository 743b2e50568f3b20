-- Waiting jobs have claims too. A claim refers to `seq` instead of the id, because the earlier job has the lower one.
CREATE TABLE claim_3 (
    job INTEGER NOT NULL REFERENCES job (seq) ON DELETE CASCADE,
    resource TEXT NOT NULL,
    phase TEXT NOT NULL CHECK (phase IN ('waits', 'holds', 'over')),
    PRIMARY KEY (job, resource)
) STRICT, WITHOUT ROWID;

INSERT INTO claim_3 SELECT job.seq, claim.resource, claim.phase FROM claim JOIN job ON job.id = claim.job;
DROP TABLE claim;
ALTER TABLE claim_3 RENAME TO claim;

CREATE UNIQUE INDEX claim_holder ON claim (resource) WHERE phase = 'holds';
CREATE INDEX claim_waiter ON claim (resource, job) WHERE phase = 'waits';

CREATE INDEX job_queued ON job (seq) WHERE state = 'queued';

-- Columns, because SQLite 3.40 refuses json_extract() in an index as unsafe where the schema is not trusted.
ALTER TABLE job ADD COLUMN project TEXT NOT NULL DEFAULT '';
ALTER TABLE job ADD COLUMN pipeline TEXT NOT NULL DEFAULT '';

UPDATE job SET project = json_extract(record, '$.project'), pipeline = json_extract(record, '$.pipeline');
UPDATE job SET checksum = checksum(id, state, ended_at, ended_uptime, ended_boot, record, project, pipeline);

CREATE INDEX job_of_pipeline ON job (project, pipeline, seq);
