-- Pages to verified pairs. Keys are content hashes: a re-run finds the same ids.

CREATE TABLE pages (
    document_id text NOT NULL REFERENCES documents ON DELETE CASCADE,
    page integer NOT NULL CHECK (page >= 1),
    batch_key text NOT NULL REFERENCES page_batches ON DELETE CASCADE,
    spec text NOT NULL,
    width_pt double precision NOT NULL,
    height_pt double precision NOT NULL,
    content jsonb NOT NULL,
    thumbnail_key text NOT NULL,
    PRIMARY KEY (document_id, page)
);
CREATE INDEX ON pages (batch_key);

CREATE TABLE panels (
    panel_id text PRIMARY KEY,
    document_id text NOT NULL,
    page integer NOT NULL,
    batch_key text NOT NULL REFERENCES page_batches ON DELETE CASCADE,
    spec text NOT NULL,
    box_pt double precision[] NOT NULL CHECK (cardinality(box_pt) = 4),
    width_px integer NOT NULL,
    height_px integer NOT NULL,
    dpi real NOT NULL,
    method text NOT NULL,
    xref integer NOT NULL,
    alternative_of text,
    ignore_boxes_px jsonb NOT NULL,
    modality text NOT NULL,
    modality_confidence real NOT NULL,
    drawing boolean NOT NULL,
    image_key text NOT NULL,
    FOREIGN KEY (document_id, page) REFERENCES pages ON DELETE CASCADE
);
CREATE INDEX ON panels (batch_key);
CREATE INDEX ON panels (document_id, page);
COMMENT ON COLUMN panels.drawing IS 'Charts, schematics, logos: kept for the record, never compared.';
COMMENT ON COLUMN panels.alternative_of IS
    'The panel of which this is another reading (merged or split); null for the primary reading.';

CREATE TABLE panel_features (
    panel_id text NOT NULL REFERENCES panels ON DELETE CASCADE,
    spec text NOT NULL,
    keypoints integer NOT NULL,
    features bytea NOT NULL,
    index_features bytea NOT NULL,
    PRIMARY KEY (panel_id, spec)
);
-- Packed descriptors do not compress: store them out of line as they are.
ALTER TABLE panel_features ALTER features SET STORAGE EXTERNAL;
ALTER TABLE panel_features ALTER index_features SET STORAGE EXTERNAL;
COMMENT ON COLUMN panel_features.index_features IS
    'The strongest few, which the search over everything stored streams through memory.';

CREATE TABLE tiles (
    panel_id text NOT NULL REFERENCES panels ON DELETE CASCADE,
    spec text NOT NULL,
    ordinal integer NOT NULL,
    level integer NOT NULL,
    box_px integer[] NOT NULL CHECK (cardinality(box_px) = 4),
    blank boolean NOT NULL,
    PRIMARY KEY (panel_id, spec, ordinal)
);

-- What made an embedding. Each encoder has a table of its own, so that two never mix.
CREATE TABLE encoders (
    encoder_id text PRIMARY KEY,
    table_name text NOT NULL UNIQUE CHECK (table_name ~ '^tile_embeddings_[0-9a-f]{12}$'),
    dim integer NOT NULL CHECK (dim BETWEEN 1 AND 4000),
    background bytea,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE candidate_pairs (
    panel_a text NOT NULL REFERENCES panels ON DELETE CASCADE,
    panel_b text NOT NULL REFERENCES panels ON DELETE CASCADE,
    channel text NOT NULL,
    spec text NOT NULL,
    batch_key text NOT NULL REFERENCES page_batches ON DELETE CASCADE,
    score real NOT NULL,
    votes integer NOT NULL,
    PRIMARY KEY (panel_a, panel_b, channel, spec),
    CHECK (panel_a <= panel_b)
);
CREATE INDEX ON candidate_pairs (batch_key);
CREATE INDEX ON candidate_pairs (panel_b);

CREATE TABLE verified_pairs (
    pair_id text PRIMARY KEY,
    panel_a text NOT NULL REFERENCES panels ON DELETE CASCADE,
    panel_b text NOT NULL REFERENCES panels ON DELETE CASCADE,
    spec text NOT NULL,
    batch_key text NOT NULL REFERENCES page_batches ON DELETE CASCADE,
    relation text NOT NULL,
    probability double precision NOT NULL CHECK (probability BETWEEN 0 AND 1),
    tier text NOT NULL,
    match jsonb NOT NULL,
    CHECK (panel_a <= panel_b)
);
CREATE INDEX ON verified_pairs (batch_key);
CREATE INDEX ON verified_pairs (panel_a);
CREATE INDEX ON verified_pairs (panel_b);
COMMENT ON COLUMN verified_pairs.match IS
    'Transform, regions and evidence as core.verification gives them, in panel pixels.';

-- What is gone is not done. Rows that vanish with their page, panel or candidate take their ledger
-- rows along, so that the same id, should it come back under an earlier spec, is worked on again.
CREATE INDEX ON work (unit);

CREATE FUNCTION forget_panel_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM work WHERE unit = OLD.panel_id;
    RETURN NULL;
END $$;
CREATE TRIGGER panel_gone AFTER DELETE ON panels
    FOR EACH ROW EXECUTE FUNCTION forget_panel_work();

CREATE FUNCTION forget_page_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM work WHERE unit = page_unit(OLD.document_id, OLD.page);
    RETURN NULL;
END $$;
CREATE TRIGGER page_gone AFTER DELETE ON pages
    FOR EACH ROW EXECUTE FUNCTION forget_page_work();

CREATE FUNCTION forget_pair_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM work WHERE unit = OLD.panel_a || '+' || OLD.panel_b;
    DELETE FROM verified_pairs WHERE panel_a = OLD.panel_a AND panel_b = OLD.panel_b;
    RETURN NULL;
END $$;
CREATE TRIGGER candidate_gone AFTER DELETE ON candidate_pairs
    FOR EACH ROW EXECUTE FUNCTION forget_pair_work();
