-- Which contents the stored report of each document was written from.
CREATE TABLE reports (
    document_id text PRIMARY KEY REFERENCES documents ON DELETE CASCADE,
    contents text NOT NULL,
    status text NOT NULL CHECK (status IN ('ok', 'degraded', 'failed')),
    pairs integer NOT NULL,
    key text NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN reports.contents IS 'SHA-256 of everything the report says, its pictures apart.';
COMMENT ON COLUMN reports.key IS 'Folder of the image store that holds the three files.';
