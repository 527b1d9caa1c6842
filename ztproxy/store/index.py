"""A derived index in one SQLite file: where each owner's entries lie, and a summary of each owner.

Called by `recording.catalog`, which knows what owners, places and summaries mean; here they are opaque.
Everything in it can be made anew from what it indexes, so it is never the only copy of anything and a
damaged one is simply discarded. Synchronous, for one thread.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from ztproxy.store.interface import StoreUnavailable

SCHEMA: Final = 1
_APPLICATION: Final = 0x7A747069  # "ztpi"

_TABLES: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE place (owner TEXT NOT NULL, file INTEGER NOT NULL, places BLOB NOT NULL)",
    "CREATE INDEX place_owner ON place (owner)",
    "CREATE TABLE summary (owner TEXT PRIMARY KEY, last INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE INDEX summary_last ON summary (last)",
    "CREATE TABLE pending (id TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID",
)


class Index:
    """An open index."""

    __slots__ = ("_db",)

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create; what is no index of this version is replaced by an empty one."""
        with _told():
            path.touch(mode=0o600)
            try:
                return cls(_connect(str(path)))
            except (sqlite3.DatabaseError, ValueError) as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
        discard(path)
        with _told():
            path.touch(mode=0o600)
            return cls(_connect(str(path)))

    @classmethod
    def copy(cls, path: Path) -> Self:
        """Return an index in memory, with what the file holds if it is a good index, else empty."""
        with _told():
            if path.exists():
                with suppress(sqlite3.Error, ValueError):
                    return cls(_load(path))
            return cls(_connect(":memory:"))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write everything inside at once or not at all."""
        with _told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def position(self) -> bytes:
        """Return how far the index goes, as its user wrote it; b"" for an empty one."""
        with _told():
            row = self._db.execute("SELECT value FROM meta WHERE name='position'").fetchone()
        return bytes(row[0]) if row else b""

    def set_position(self, position: bytes) -> None:
        """Write down how far the index goes."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('position', ?)", (position,))

    def add_places(self, rows: Iterable[tuple[str, int, bytes]]) -> None:
        """Add (owner, file, packed places), in the order they are to be read."""
        self._db.executemany("INSERT INTO place VALUES (?,?,?)", rows)

    def put_summary(self, owner: str, last: int, value: bytes) -> None:
        """Write an owner's summary; `last` orders the list."""
        self._db.execute("INSERT OR REPLACE INTO summary VALUES (?,?,?)", (owner, last, value))

    def add_pending(self, rows: Iterable[tuple[str, str]]) -> None:
        """Remember (id, owner) of something that is not finished."""
        self._db.executemany("INSERT OR REPLACE INTO pending VALUES (?,?)", rows)

    def pending(self, identifier: str) -> str | None:
        """Return the owner of something unfinished."""
        with _told():
            row = self._db.execute("SELECT owner FROM pending WHERE id=?", (identifier,)).fetchone()
        return str(row[0]) if row else None

    def drop_pending(self, identifiers: Iterable[str]) -> None:
        """Forget what is finished."""
        self._db.executemany("DELETE FROM pending WHERE id=?", ((one,) for one in identifiers))

    def clear(self) -> None:
        """Forget everything."""
        for table in ("meta", "place", "summary", "pending"):
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - names from the line above

    def places(self, owner: str) -> list[tuple[int, bytes]]:
        """Return (file, packed places) of an owner in the order written."""
        with _told():
            return self._db.execute(
                "SELECT file, places FROM place WHERE owner=? ORDER BY rowid", (owner,)
            ).fetchall()

    def summary(self, owner: str) -> bytes | None:
        """Return an owner's summary."""
        with _told():
            row = self._db.execute("SELECT value FROM summary WHERE owner=?", (owner,)).fetchone()
        return bytes(row[0]) if row else None

    def summaries(self, limit: int) -> list[bytes]:
        """Return summaries, the one with the newest `last` first."""
        with _told():
            rows = self._db.execute(
                "SELECT value FROM summary ORDER BY last DESC, owner LIMIT ?", (limit,)
            ).fetchall()
        return [bytes(row[0]) for row in rows]

    def owners(self, prefix: str, limit: int) -> list[str]:
        """Return owners whose name starts with `prefix`."""
        with _told():
            rows = self._db.execute(
                "SELECT owner FROM summary WHERE substr(owner,1,?)=? ORDER BY owner LIMIT ?",
                (len(prefix), prefix, limit),
            ).fetchall()
        return [str(row[0]) for row in rows]


def discard(path: Path) -> None:
    """Remove an index and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _connect(path: str) -> sqlite3.Connection:
    """Raises sqlite3.Error, ValueError when the file is another kind of database."""
    db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        _prepare(db)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection) -> None:
    found = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    if found not in ([0, 0], [_APPLICATION, SCHEMA]):
        raise ValueError("not an index of this version")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=OFF")  # derived: worth no wait for the disk
    db.execute("PRAGMA trusted_schema=OFF")
    if found == [0, 0]:
        db.execute("BEGIN IMMEDIATE")
        for table in _TABLES:
            db.execute(table)
        db.execute(f"PRAGMA application_id={_APPLICATION}")
        db.execute(f"PRAGMA user_version={SCHEMA}")
        db.execute("COMMIT")


def _load(path: Path) -> sqlite3.Connection:
    """Copy a file into memory, changing nothing: also of a copy on read-only media."""
    wal = path.with_name(path.name + "-wal").exists()
    source = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{'' if wal else '&immutable=1'}", uri=True)
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        source.backup(db)
        _prepare(db)
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise ValueError("damaged")
    except BaseException:
        db.close()
        raise
    finally:
        source.close()
    return db


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailable(f"index: {error}") from error
