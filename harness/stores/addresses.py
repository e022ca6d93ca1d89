"""The address of a SQLite file as a URI, and back."""

import os
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from harness.errors import UserError


def sqlite_uri(path: Path) -> str:
    """Return the URI of a SQLite file, with what would mean something else in a URI escaped as SQLAlchemy reads it.

    Raises:
        UserError: the path is not text, so that no URI can hold it.
    """
    try:
        return URL.create("sqlite", database=str(path)).render_as_string()
    except UnicodeEncodeError:
        raise UserError(
            f"{os.fsencode(path)!r} is not UTF-8, which the address of a database must be\n"
            "name another home folder (HARNESS_HOME), or rename this one"
        ) from None


def sqlite_path(uri: str) -> Path | None:
    """Return the file that the URI of a SQLite database names; None if it is another database, or one in memory."""
    if not uri.startswith("sqlite:///"):
        return None
    database = make_url(uri).database
    return Path(database) if database and database != ":memory:" else None
