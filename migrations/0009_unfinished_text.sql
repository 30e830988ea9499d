-- Passages and vectors that are forgotten are not finished either, so that the night asks for their
-- batch. A run that ends between other passages and their vectors, or between what a page says now and
-- its passages, would else leave a batch that counts as finished: its own spec is what it was.
CREATE FUNCTION forget_finished_text() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM gone WHERE asset IN ('chunks', 'chunk_embeddings')) THEN
        DELETE FROM finished AS f
        USING (SELECT DISTINCT asset, batch_key, spec FROM gone
               WHERE asset IN ('chunks', 'chunk_embeddings')) AS g
        WHERE f.asset = g.asset AND f.batch_key = g.batch_key AND f.spec = g.spec;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER finished_text_gone AFTER DELETE ON work
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION forget_finished_text();
