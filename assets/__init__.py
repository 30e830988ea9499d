"""What Quire makes: one module per Dagster asset."""
