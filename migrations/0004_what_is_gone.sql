-- What somebody deletes is not done either. 0002 sees to rows that vanish with their page, panel or
-- candidate; a row that is deleted by itself (depth 1: by a statement, not by a cascade) takes along
-- the ledger row of the work that made it. Reports then say that something was not looked at, and
-- the next run makes it again.

CREATE OR REPLACE FUNCTION forget_panel_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM work WHERE unit = OLD.panel_id;
    IF pg_trigger_depth() = 1 THEN
        DELETE FROM work
        WHERE asset = 'panels' AND unit = page_unit(OLD.document_id, OLD.page)
          AND spec = OLD.spec;
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION forget_pair_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM work WHERE unit = OLD.panel_a || '+' || OLD.panel_b;
    DELETE FROM verified_pairs WHERE panel_a = OLD.panel_a AND panel_b = OLD.panel_b;
    IF pg_trigger_depth() = 1 THEN
        DELETE FROM work
        WHERE asset = 'candidate_pairs' AND unit IN (OLD.panel_a, OLD.panel_b)
          AND spec = OLD.spec;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION forget_verification_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() = 1 THEN
        DELETE FROM work
        WHERE asset = 'verified_pairs' AND unit = OLD.panel_a || '+' || OLD.panel_b
          AND spec = OLD.spec;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER verified_pair_gone AFTER DELETE ON verified_pairs
    FOR EACH ROW EXECUTE FUNCTION forget_verification_work();

-- Panels that came while the features were missing were not compared with this one: it is searched
-- for again once it has them.
CREATE FUNCTION forget_feature_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() = 1 THEN
        DELETE FROM work
        WHERE unit = OLD.panel_id AND asset IN ('panel_features', 'candidate_pairs');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER panel_features_gone AFTER DELETE ON panel_features
    FOR EACH ROW EXECUTE FUNCTION forget_feature_work();

-- A panel has hundreds of tiles: one look at the ledger for all that a statement deletes.
CREATE FUNCTION forget_tile_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() = 1 THEN
        DELETE FROM work
        WHERE asset IN ('tiles', 'tile_embeddings')
          AND unit IN (SELECT DISTINCT panel_id FROM gone);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER tiles_gone AFTER DELETE ON tiles
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION forget_tile_work();
