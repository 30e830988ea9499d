-- Dagster keeps its runs and events in a database of its own, beside Quire's.
CREATE DATABASE quire_dagster;
