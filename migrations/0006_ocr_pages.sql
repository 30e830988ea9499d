-- What each page says, whichever way it was read: taken from the file, recognized, or both.

CREATE TABLE ocr_pages (
    document_id text NOT NULL,
    page integer NOT NULL,
    batch_key text NOT NULL REFERENCES page_batches ON DELETE CASCADE,
    spec text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('text_layer', 'ocr', 'hybrid', 'blank')),
    language text NOT NULL,
    dpi real CHECK (dpi > 0),
    confidence real CHECK (confidence BETWEEN 0 AND 100),
    text text NOT NULL,
    words jsonb NOT NULL,
    regions jsonb NOT NULL,
    PRIMARY KEY (document_id, page),
    FOREIGN KEY (document_id, page) REFERENCES pages ON DELETE CASCADE
);
CREATE INDEX ON ocr_pages (batch_key);
COMMENT ON COLUMN ocr_pages.language IS 'Three letters, as tesseract has them; empty where there is no text.';
COMMENT ON COLUMN ocr_pages.dpi IS 'The resolution it was recognized at; null where nothing was.';
COMMENT ON COLUMN ocr_pages.confidence IS
    'Mean over recognized words, 0 to 100; null where no word was recognized.';
COMMENT ON COLUMN ocr_pages.words IS
    '[[start, end, x0, y0, x1, y1, confidence], ...]: span in text, box in points as the page is '
    'shown; 100 where the file itself says so, less where it was recognized.';
COMMENT ON COLUMN ocr_pages.regions IS
    'Where recognition is doubtful: [{"box_pt": [...], "confidence": c, "read_again_dpi": d or null}].';

-- The searchable copy of each document.
CREATE TABLE searchable_pdfs (
    document_id text PRIMARY KEY REFERENCES documents ON DELETE CASCADE,
    spec text NOT NULL,
    key text NOT NULL,
    pages integer NOT NULL CHECK (pages >= 0),
    words integer NOT NULL CHECK (words >= 0),
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    written_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN searchable_pdfs.pages IS 'Pages that got text they did not have.';

-- What is gone is not done, as in 0002 and 0004. A page that is read anew takes its chunks along, so
-- they are made again; one that somebody deletes (depth 1) is also read again. A searchable copy is
-- out of date as soon as any page of its document says something else.
CREATE FUNCTION forget_ocr_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM work
        WHERE unit = page_unit(OLD.document_id, OLD.page)
          AND (asset = 'chunks' OR asset = 'ocr_pages' AND pg_trigger_depth() = 1);
        DELETE FROM work WHERE asset = 'searchable_pdfs' AND unit = OLD.document_id;
    ELSE
        DELETE FROM work WHERE asset = 'searchable_pdfs' AND unit = NEW.document_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ocr_page_gone AFTER DELETE ON ocr_pages
    FOR EACH ROW EXECUTE FUNCTION forget_ocr_work();
CREATE TRIGGER ocr_page_new AFTER INSERT ON ocr_pages
    FOR EACH ROW EXECUTE FUNCTION forget_ocr_work();

CREATE FUNCTION forget_searchable_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() = 1 THEN
        DELETE FROM work WHERE asset = 'searchable_pdfs' AND unit = OLD.document_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER searchable_pdf_gone AFTER DELETE ON searchable_pdfs
    FOR EACH ROW EXECUTE FUNCTION forget_searchable_work();
