"""The type of an open connection, for signatures in rooms that hold no SQL."""

from typing import Any

from psycopg import Connection

Db = Connection[tuple[Any, ...]]
