-- Which known item is in a photograph: the gallery, what was photographed, what was found, and what
-- people say of it.

-- Partitions are no longer of pages alone. Every kind has its own order of registration.
ALTER TABLE page_batches RENAME TO batches;
ALTER TABLE batches ADD COLUMN kind text NOT NULL DEFAULT 'page'
    CHECK (kind IN ('page', 'gallery', 'scan', 'day'));
ALTER TABLE batches ALTER COLUMN kind DROP DEFAULT;

-- The known items, as a manifest names them.
CREATE TABLE gallery_items (
    item_id text PRIMARY KEY CHECK (item_id <> '' AND length(item_id) <= 200),
    batch_key text NOT NULL REFERENCES batches ON DELETE CASCADE,
    name text NOT NULL DEFAULT '',
    set_code text NOT NULL DEFAULT '',
    number text NOT NULL DEFAULT '',
    language text NOT NULL DEFAULT '',
    source text NOT NULL DEFAULT '',
    received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON gallery_items (batch_key);
CREATE INDEX ON gallery_items (set_code);
COMMENT ON COLUMN gallery_items.source IS 'Manifest and line: shown to people, never used as a path.';

-- Reference pictures of items as they were received; one that could not be read has a reason and no
-- key. Those that people's corrections gave name the correction.
CREATE TABLE gallery_images (
    template_id text PRIMARY KEY CHECK (template_id ~ '^[0-9a-f]{32}$'),
    item_id text NOT NULL REFERENCES gallery_items ON DELETE CASCADE,
    image_sha256 text NOT NULL,
    name text NOT NULL,
    file_key text NOT NULL,
    reason text NOT NULL DEFAULT '',
    correction_id bigint,
    received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON gallery_images (item_id);
CREATE INDEX ON gallery_images (image_sha256);
COMMENT ON COLUMN gallery_images.template_id IS
    'Of the item''s id and the picture''s SHA-256: the same picture twice is one template.';

-- Templates: upright pictures of one size, which search and verification compare with.
CREATE TABLE gallery_templates (
    template_id text PRIMARY KEY REFERENCES gallery_images ON DELETE CASCADE,
    spec text NOT NULL,
    image_key text NOT NULL
);

-- One table of vectors per encoder, made when it is first used; two spaces never meet in a search.
CREATE TABLE template_encoders (
    encoder_id text PRIMARY KEY,
    table_name text NOT NULL UNIQUE,
    dim integer NOT NULL CHECK (dim > 0),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Photographs, as received. Filters say among which items theirs are sought.
CREATE TABLE scans (
    scan_id text PRIMARY KEY CHECK (scan_id ~ '^[0-9a-f]{64}$'),
    batch_key text NOT NULL REFERENCES batches ON DELETE CASCADE,
    name text NOT NULL,
    size_bytes bigint NOT NULL,
    file_key text NOT NULL,
    reason text NOT NULL DEFAULT '',
    sets text[] NOT NULL DEFAULT '{}',
    languages text[] NOT NULL DEFAULT '{}',
    evaluation boolean NOT NULL DEFAULT false,
    received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON scans (batch_key);
COMMENT ON COLUMN scans.evaluation IS
    'Kept aside to measure with: nothing of it may ever become a template.';

-- The same, turned upright, without what cameras write beside pixels. Once it is there the file as
-- received is deleted, since that has the place and the owner in it; what is made anew is made of this.
CREATE TABLE scan_pictures (
    scan_id text PRIMARY KEY REFERENCES scans ON DELETE CASCADE,
    spec text NOT NULL,
    image_key text NOT NULL,
    width_px integer NOT NULL,
    height_px integer NOT NULL,
    scale real NOT NULL,
    loss text NOT NULL DEFAULT '',
    whole boolean NOT NULL DEFAULT true
);
COMMENT ON COLUMN scan_pictures.whole IS
    'False where it was reduced for want of memory: the file as received stays until there is more.';
COMMENT ON COLUMN scan_pictures.scale IS
    'Pixels here for each one of the file; below 1 where it is larger than what is looked at.';

CREATE TABLE detections (
    detection_id text PRIMARY KEY CHECK (detection_id ~ '^[0-9a-f]{32}$'),
    scan_id text NOT NULL REFERENCES scan_pictures ON DELETE CASCADE,
    spec text NOT NULL,
    ordinal integer NOT NULL,
    quad double precision[] NOT NULL CHECK (cardinality(quad) = 8),
    score real NOT NULL,
    how text NOT NULL,
    crop_key text NOT NULL,
    crop_sha256 text NOT NULL
);
CREATE INDEX ON detections (scan_id);
COMMENT ON COLUMN detections.quad IS
    'Corners x, y in pixels of the upright picture, clockwise from the top left one.';

CREATE TABLE candidates (
    detection_id text NOT NULL REFERENCES detections ON DELETE CASCADE,
    rank integer NOT NULL CHECK (rank >= 1),
    template_id text NOT NULL,
    item_id text NOT NULL,
    similarity real NOT NULL,
    turned boolean NOT NULL,
    PRIMARY KEY (detection_id, rank)
);

CREATE TABLE identifications (
    detection_id text PRIMARY KEY REFERENCES detections ON DELETE CASCADE,
    spec text NOT NULL,
    decision text NOT NULL CHECK (decision IN ('accept', 'review', 'unknown')),
    score real NOT NULL CHECK (score BETWEEN 0 AND 1),
    item_id text,
    turned boolean NOT NULL,
    candidates jsonb NOT NULL,
    reasons jsonb NOT NULL,
    measures jsonb NOT NULL,
    degraded text NOT NULL DEFAULT '',
    made_at timestamptz NOT NULL DEFAULT now()
);

-- What people say a detection is. Events are added and never changed; taking one back is an event.
CREATE TABLE corrections (
    correction_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    verdict text NOT NULL CHECK (verdict IN ('is', 'unknown', 'revoke')),
    detection_id text NOT NULL,
    scan_id text NOT NULL,
    item_id text,
    revokes bigint REFERENCES corrections,
    user_name text NOT NULL CHECK (user_name <> ''),
    curator boolean NOT NULL DEFAULT false,
    note text NOT NULL DEFAULT '',
    predicted_item text,
    predicted_decision text,
    predicted_score real,
    crop_key text NOT NULL,
    crop_sha256 text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((verdict = 'is') = (item_id IS NOT NULL)),
    CHECK ((verdict = 'revoke') = (revokes IS NOT NULL))
);
CREATE INDEX ON corrections (item_id);
CREATE INDEX ON corrections (detection_id);
CREATE FUNCTION refuse_to_rewrite() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'corrections are added and never changed; revoke one with another';
END $$;
CREATE TRIGGER corrections_stay BEFORE UPDATE OR DELETE ON corrections
    FOR EACH ROW EXECUTE FUNCTION refuse_to_rewrite();
CREATE TRIGGER corrections_are_kept BEFORE TRUNCATE ON corrections
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_rewrite();

-- What became of the crops that corrections name: derived from events, made anew at will.
CREATE TABLE learned_templates (
    correction_id bigint PRIMARY KEY REFERENCES corrections,
    item_id text NOT NULL,
    template_id text NOT NULL,
    state text NOT NULL CHECK (state IN ('quarantined', 'active', 'refused', 'revoked')),
    reason text NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON learned_templates (item_id);

-- For each item the others that look like it. What is taken for what is read from both sides of this and
-- from the corrections.
CREATE TABLE look_alikes (
    item_id text NOT NULL REFERENCES gallery_items ON DELETE CASCADE,
    other_id text NOT NULL REFERENCES gallery_items ON DELETE CASCADE,
    encoder_id text NOT NULL,
    similarity real NOT NULL,
    PRIMARY KEY (item_id, other_id),
    CHECK (item_id <> other_id)
);
CREATE INDEX ON look_alikes (other_id);

CREATE TABLE gallery_quality (
    day date PRIMARY KEY,
    measures jsonb NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
