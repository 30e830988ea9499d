"""Numbered SQL files, applied in order by `store.migrate`."""
