-- Which encoder's vectors are searched with: the one of the last row. Rows are added and never
-- changed, so going back is one more row, and who served when can be read later.
CREATE TABLE encoder_switches (
    switch_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    encoder_id text NOT NULL REFERENCES encoders ON DELETE CASCADE,
    switched_at timestamptz NOT NULL DEFAULT now()
);
