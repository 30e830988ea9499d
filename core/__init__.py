"""What Quire knows: pure functions and frozen dataclasses, no framework, database or disk."""
