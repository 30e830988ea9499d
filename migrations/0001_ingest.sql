-- What has arrived, how its pages are batched, and which units of work are done.

CREATE TABLE documents (
    document_id text PRIMARY KEY CHECK (document_id ~ '^[0-9a-f]{64}$'),
    name text NOT NULL,
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    page_count integer NOT NULL DEFAULT 0 CHECK (page_count >= 0),
    title text NOT NULL DEFAULT '',
    status text NOT NULL CHECK (status IN ('ok', 'degraded', 'failed')),
    reason text NOT NULL DEFAULT '',
    file_key text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN documents.document_id IS 'SHA-256 of the file: the same file twice is one document.';
COMMENT ON COLUMN documents.name IS 'The name it arrived under: shown to people, never used as a path.';

-- One row per batch, in order of arrival; the key is the Dagster partition.
CREATE TABLE page_batches (
    batch_key text PRIMARY KEY CHECK (batch_key ~ '^[a-z0-9_-]+$'),
    ordinal bigint GENERATED ALWAYS AS IDENTITY UNIQUE
);

-- Which pages a batch holds. A document that could not be opened has one batch with no pages
-- (last_page 0), so that it, too, ends in a report.
CREATE TABLE page_batch_ranges (
    batch_key text NOT NULL REFERENCES page_batches ON DELETE CASCADE,
    document_id text NOT NULL REFERENCES documents ON DELETE CASCADE,
    first_page integer NOT NULL CHECK (first_page >= 1),
    last_page integer NOT NULL CHECK (last_page >= 0),
    PRIMARY KEY (document_id, first_page)
);
CREATE INDEX ON page_batch_ranges (batch_key);

-- Present means done. One row per unit of work and everything it was computed with.
CREATE TABLE work (
    asset text NOT NULL,
    unit text NOT NULL,
    spec text NOT NULL,
    batch_key text NOT NULL REFERENCES page_batches ON DELETE CASCADE,
    status text NOT NULL CHECK (status IN ('ok', 'degraded', 'failed')),
    reason text NOT NULL DEFAULT '',
    made integer NOT NULL CHECK (made >= 0),
    budget_mb integer,
    run_id text NOT NULL,
    done_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (asset, unit, spec)
);
CREATE INDEX ON work (asset, batch_key);
COMMENT ON COLUMN work.budget_mb IS
    'Set where the unit failed for want of memory: it is tried again under a larger budget.';

-- Whether a unit needs no further work: it is in the ledger under this spec, and it did not fail
-- for want of memory under a smaller budget than the one granted now.
CREATE FUNCTION is_done(which_asset text, which_unit text, which_spec text, granted_mb integer)
RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT EXISTS (
        SELECT FROM work
        WHERE asset = which_asset AND unit = which_unit AND spec = which_spec
          AND NOT (status = 'failed' AND budget_mb IS NOT NULL AND budget_mb < granted_mb)
    )
$$;

CREATE FUNCTION page_unit(which_document text, which_page integer)
RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT which_document || ':' || which_page
$$;

-- One row per asset and partition, written when the last unit of the partition is done.
CREATE TABLE finished (
    asset text NOT NULL,
    batch_key text NOT NULL REFERENCES page_batches ON DELETE CASCADE,
    spec text NOT NULL,
    run_id text NOT NULL,
    done_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (asset, batch_key)
);
