-- Passages of what pages say, and the vectors by which they are found.

CREATE TABLE chunks (
    chunk_id text PRIMARY KEY,
    document_id text NOT NULL,
    page integer NOT NULL,
    batch_key text NOT NULL REFERENCES page_batches ON DELETE CASCADE,
    chunk_set text NOT NULL,
    spec text NOT NULL,
    ordinal integer NOT NULL CHECK (ordinal >= 0),
    start_char integer NOT NULL CHECK (start_char >= 0),
    end_char integer NOT NULL,
    text text NOT NULL,
    tokens integer NOT NULL CHECK (tokens >= 0),
    language text NOT NULL,
    kind text NOT NULL,
    tsv tsvector NOT NULL,
    CHECK (end_char > start_char),
    FOREIGN KEY (document_id, page) REFERENCES ocr_pages ON DELETE CASCADE
);
CREATE INDEX ON chunks USING gin (tsv);
CREATE INDEX ON chunks (document_id, page, chunk_set, ordinal);
CREATE INDEX ON chunks (batch_key);
COMMENT ON COLUMN chunks.chunk_id IS 'Hash of document, page, chunk set, span and text.';
COMMENT ON COLUMN chunks.chunk_set IS
    'Whose tokens they were counted in: encoders with the same tokens and the same room share a set. '
    'Sets lie side by side while encoders do; a search looks at one.';
COMMENT ON COLUMN chunks.start_char IS 'Where it begins in ocr_pages.text; end_char is outside.';
COMMENT ON COLUMN chunks.text IS 'Those characters, as the page has them.';
COMMENT ON COLUMN chunks.tokens IS 'What the encoder reads of it, special tokens and prefix included.';
COMMENT ON COLUMN chunks.tsv IS
    'By the text search configuration of its language, simple where there is none; words that a '
    'line end divides are joined.';

-- What made a vector. Each encoder has a table of its own, so that two never mix.
CREATE TABLE text_encoders (
    encoder_id text PRIMARY KEY,
    table_name text NOT NULL UNIQUE CHECK (table_name ~ '^chunk_embeddings_[0-9a-f]{12}$'),
    dim integer NOT NULL CHECK (dim BETWEEN 1 AND 4000),
    chunk_set text NOT NULL,
    witness real[],
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN text_encoders.witness IS
    'What the encoder made of core.text_encoders.WITNESS when its first vectors were stored. One '
    'that makes something else of it later is another encoder under the same name.';

-- Which encoder's vectors are searched with: the one of the last row, as in 0005.
CREATE TABLE text_encoder_switches (
    switch_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    encoder_id text NOT NULL REFERENCES text_encoders ON DELETE CASCADE,
    switched_at timestamptz NOT NULL DEFAULT now()
);

-- What is gone is not done, as in 0002 and 0004: other chunks have other vectors, and a chunk that
-- somebody deletes (depth 1) is made again. Specs of vectors end with the set of their chunks, so
-- that a second set leaves the vectors of the first alone. One look at the ledger for all that a
-- statement does.
CREATE FUNCTION forget_chunk_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM work
    USING (SELECT DISTINCT page_unit(document_id, page) AS unit, chunk_set FROM changed) AS c
    WHERE work.unit = c.unit
      AND (asset IN ('chunk_embeddings', 'next_chunk_embeddings')
               AND spec LIKE '%-' || c.chunk_set
           OR asset = 'chunks' AND TG_OP = 'DELETE' AND pg_trigger_depth() = 1);
    RETURN NULL;
END $$;
CREATE TRIGGER chunks_gone AFTER DELETE ON chunks
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION forget_chunk_work();
CREATE TRIGGER chunks_new AFTER INSERT ON chunks
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION forget_chunk_work();

-- The same for vectors; every table of them gets this trigger when it is made.
CREATE FUNCTION forget_chunk_embedding_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() = 1 THEN
        DELETE FROM work
        WHERE asset IN ('chunk_embeddings', 'next_chunk_embeddings')
          AND unit IN (SELECT DISTINCT page_unit(document_id, page)
                       FROM gone JOIN chunks USING (chunk_id));
    END IF;
    RETURN NULL;
END $$;
