-- What searching needs beside the passages and their vectors.

-- Which passages a query may find. One function, so that every statement filters alike; it is
-- inlined into each, and what is null leaves no trace in the plan. Days are days in UTC, both
-- included.
CREATE FUNCTION searched_chunks(
    which_set text, which_documents text[], first_page integer, last_page integer,
    which_languages text[], which_kinds text[], since date, until date
)
RETURNS SETOF chunks LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT c.* FROM chunks AS c
    WHERE c.chunk_set = which_set
      AND (which_documents IS NULL OR c.document_id = ANY(which_documents))
      AND (first_page IS NULL OR c.page >= first_page)
      AND (last_page IS NULL OR c.page <= last_page)
      AND (which_languages IS NULL OR c.language = ANY(which_languages))
      AND (which_kinds IS NULL OR c.kind = ANY(which_kinds))
      AND (since IS NULL AND until IS NULL OR c.document_id IN (
            SELECT d.document_id FROM documents AS d
            WHERE (since IS NULL OR d.received_at >= since::timestamp AT TIME ZONE 'UTC')
              AND (until IS NULL OR d.received_at < (until + 1)::timestamp AT TIME ZONE 'UTC')))
$$;

-- Filters are counted and joined on these alone: rows of passages are wide.
CREATE INDEX chunks_filtered ON chunks (chunk_set, language, kind, page)
    INCLUDE (document_id, chunk_id);
CREATE INDEX documents_by_name ON documents (name);

CREATE INDEX work_failed ON work (asset, unit) WHERE status = 'failed';

-- A query for one lexeme, quoted as the parser of queries wants it.
CREATE FUNCTION lexeme_query(lexeme text) RETURNS tsquery LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')::tsquery
$$;

-- Answers are kept until anything that can be found changes. One row per transaction that changed
-- something: how many there are and the last of them differ before and after each commit, in
-- whatever order transactions end. A number that is raised would not do: it is raised before the
-- commit, and an answer from before would be kept under it.
CREATE TABLE search_changes (xid xid8 PRIMARY KEY);

CREATE FUNCTION note_search_change() RETURNS void LANGUAGE sql AS $$
    INSERT INTO search_changes (xid) VALUES (pg_current_xact_id()) ON CONFLICT DO NOTHING
$$;

CREATE FUNCTION search_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_search_change();
    RETURN NULL;
END $$;
CREATE TRIGGER search_changed AFTER INSERT OR UPDATE OR DELETE ON documents
    FOR EACH STATEMENT EXECUTE FUNCTION search_changed();
CREATE TRIGGER search_changed AFTER INSERT OR UPDATE OR DELETE ON ocr_pages
    FOR EACH STATEMENT EXECUTE FUNCTION search_changed();
CREATE TRIGGER search_changed AFTER INSERT OR UPDATE OR DELETE ON chunks
    FOR EACH STATEMENT EXECUTE FUNCTION search_changed();
CREATE TRIGGER search_changed AFTER INSERT OR UPDATE OR DELETE ON text_encoders
    FOR EACH STATEMENT EXECUTE FUNCTION search_changed();
CREATE TRIGGER search_changed AFTER INSERT OR UPDATE OR DELETE ON text_encoder_switches
    FOR EACH STATEMENT EXECUTE FUNCTION search_changed();

-- Vectors are written together with their rows of the ledger, and so is that a page has failed.
CREATE FUNCTION text_work_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM changed WHERE asset IN ('ocr_pages', 'chunks', 'chunk_embeddings')) THEN
        PERFORM note_search_change();
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER text_work_new AFTER INSERT ON work
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION text_work_changed();
CREATE TRIGGER text_work_anew AFTER UPDATE ON work
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION text_work_changed();
CREATE TRIGGER text_work_gone AFTER DELETE ON work
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION text_work_changed();

-- What was measured of the approximate index of a table of vectors.
CREATE TABLE search_indexes (
    table_name text PRIMARY KEY REFERENCES text_encoders (table_name) ON DELETE CASCADE,
    rows bigint NOT NULL CHECK (rows >= 0),
    recall real NOT NULL CHECK (recall BETWEEN 0 AND 1),
    spec text NOT NULL,
    measured_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN search_indexes.recall IS
    'Share of the exact nearest neighbours of stored passages that the index finds.';
CREATE TRIGGER search_changed AFTER INSERT OR UPDATE OR DELETE ON search_indexes
    FOR EACH STATEMENT EXECUTE FUNCTION search_changed();

-- What clients of the service call the files that they upload: shown to people, never used as a
-- path. The file itself travels through the inbox under its hash.
CREATE TABLE uploads (
    document_id text PRIMARY KEY CHECK (document_id ~ '^[0-9a-f]{64}$'),
    name text NOT NULL,
    uploaded_at timestamptz NOT NULL DEFAULT now()
);
