"""What Quire remembers: one module per table, the only home of SQL."""
