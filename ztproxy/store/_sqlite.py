"""The tables of the SQLite back end and every statement on them, synchronous.

Called by `store.sqlite` from its two threads, one of which holds the writing instance. Raises what
sqlite3 raises; never commits a record without its change.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import randbits
from typing import Any, Final

from ztproxy.store.interface import Change, Conflict, Place, StoreUnavailable, Versioned

SCHEMA: Final = 2
APPLICATION: Final = 0x7A747078  # "ztpx" in the file header: tells our file from any other database
BUSY_SECONDS: Final = 5.0
SWEEP_BATCH: Final = 256

_TABLES: Final = """
CREATE TABLE record (
  kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL,
  value BLOB NOT NULL, expires_at INTEGER NOT NULL,
  PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE INDEX record_expiry ON record (expires_at) WHERE expires_at > 0;
CREATE TABLE change (
  version INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB,
  stamp INTEGER NOT NULL DEFAULT 0
);
"""
_TO_SCHEMA_2: Final = "ALTER TABLE change ADD COLUMN stamp INTEGER NOT NULL DEFAULT 0"


class Tables:
    """One connection to the database file. Confined to one thread at a time."""

    __slots__ = ("_db", "_keep")

    def __init__(self, path: Path, keep: int) -> None:
        _create_private(path)
        self._keep = keep
        self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(path)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def _prepare(self, path: Path) -> None:
        application, schema = self._pragma("application_id"), self._pragma("user_version")
        if application not in (0, APPLICATION) or (application == 0 and self._pragma("schema_version")):
            raise StoreUnavailable(f"{path} is a database of another program")
        if schema > SCHEMA:
            raise StoreUnavailable(f"{path} was written by a newer version (schema {schema}, known {SCHEMA})")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")  # an acknowledged write survives a power cut
        self._db.execute("PRAGMA trusted_schema=OFF")
        if schema == 0:
            self._create()
        elif schema == 1:
            self._stamp()
        damage = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise StoreUnavailable(f"{path} is damaged: {damage}")

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def _create(self) -> None:
        with self._transaction():
            if self._pragma("user_version"):
                return  # another process was quicker
            for statement in filter(str.strip, _TABLES.split(";")):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id={APPLICATION}")
            self._db.execute(f"PRAGMA user_version={SCHEMA}")

    def _stamp(self) -> None:
        with self._transaction():
            if self._pragma("user_version") == 1:
                self._db.execute(_TO_SCHEMA_2)
                self._db.execute(f"PRAGMA user_version={SCHEMA}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        inner = self._db.in_transaction  # one of a group: it alone is undone
        self._db.execute("SAVEPOINT one" if inner else "BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("RELEASE one" if inner else "COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite itself rolls back on some errors
                self._db.execute("ROLLBACK TO one" if inner else "ROLLBACK")
                if inner:
                    self._db.execute("RELEASE one")
            raise

    # reading

    def get(self, kind: str, key: str, now: int) -> Versioned | None:
        """Return the live record."""
        row = self._db.execute(
            "SELECT kind, key, version, value, expires_at FROM record"
            " WHERE kind=? AND key=? AND (expires_at=0 OR expires_at>?)",
            (kind, key, now),
        ).fetchone()
        return Versioned(*row) if row else None

    def some(self, places: Sequence[Place], now: int) -> list[Versioned]:
        """Return those live records that there are."""
        return [found for kind, key in places if (found := self.get(kind, key, now)) is not None]

    def scan(self, kind: str, after: str, limit: int, now: int) -> list[Versioned]:
        """Return live records in key order."""
        rows = self._db.execute(
            "SELECT kind, key, version, value, expires_at FROM record"
            " WHERE kind=? AND key>? AND (expires_at=0 OR expires_at>?) ORDER BY key LIMIT ?",
            (kind, after, now, limit),
        )
        return [Versioned(*row) for row in rows]

    def head(self) -> int:
        """Return the number of the newest change; pruning does not lower it."""
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name='change'").fetchone()
        return int(row[0]) if row else 0

    def position(self) -> tuple[int, int]:
        """Return number and stamp of the newest change."""
        head = self.head()
        return head, self._stamp_of(head) or 0

    def _stamp_of(self, version: int) -> int | None:
        row = self._db.execute("SELECT stamp FROM change WHERE version=?", (version,)).fetchone()
        return int(row[0]) if row else None

    def after(self, version: int, stamp: int | None, limit: int) -> list[Change] | None:
        """Return the changes after `version`, None when some of them are gone (or from another history)."""
        if stamp is not None and version and self._stamp_of(version) != stamp:
            return None
        rows = self._db.execute(
            "SELECT version, kind, key, value, stamp FROM change WHERE version>? ORDER BY version LIMIT ?",
            (version, limit),
        ).fetchall()
        if rows:
            return [Change(*row) for row in rows] if rows[0][0] == version + 1 else None
        return [] if version == self.head() else None

    # writing

    def group(self, writes: Sequence[Callable[[], Any]]) -> list[Any]:
        """Do writes that wait for the disk once; return for each what it returned, or its Conflict.

        Each is done or not; when the disk fails, none is.
        """
        if len(writes) == 1:
            return [_attempt(writes[0])]
        with self._transaction():
            return [_attempt(write) for write in writes]

    def put(
        self, kind: str, key: str, value: bytes, if_version: int | None, expires_at: int, now: int
    ) -> int:
        """Write the record and its change."""
        with self._transaction():
            self._demand(kind, key, if_version, now)
            version = self._publish(kind, key, value)
            self._db.execute(
                "INSERT INTO record VALUES (?,?,?,?,?) ON CONFLICT DO UPDATE SET"
                " version=excluded.version, value=excluded.value, expires_at=excluded.expires_at",
                (kind, key, version, value, expires_at),
            )
        return version

    def delete(self, kind: str, key: str, if_version: int | None, now: int) -> bool:
        """Delete the live record and write its change."""
        with self._transaction():
            if not self._demand(kind, key, if_version, now):
                return False
            self._remove(kind, key)
        return True

    def sweep(self, now: int) -> int:
        """Delete a batch of expired records, each with its change."""
        if not self._expired(now, 1):
            return 0  # no transaction, no disk
        with self._transaction():
            rows = self._expired(now, SWEEP_BATCH)
            for kind, key in rows:
                self._remove(kind, key)
        return len(rows)

    def _expired(self, now: int, limit: int) -> Sequence[tuple[str, str]]:
        return self._db.execute(
            "SELECT kind, key FROM record WHERE expires_at>0 AND expires_at<=? LIMIT ?", (now, limit)
        ).fetchall()

    def _demand(self, kind: str, key: str, if_version: int | None, now: int) -> int:
        live = self.get(kind, key, now)
        version = live.version if live else 0
        if if_version is not None and if_version != version:
            raise Conflict(f"{kind} has version {version}, not {if_version}")
        return version

    def _remove(self, kind: str, key: str) -> None:
        self._db.execute("DELETE FROM record WHERE kind=? AND key=?", (kind, key))
        self._publish(kind, key, None)

    def _publish(self, kind: str, key: str, value: bytes | None) -> int:
        cursor = self._db.execute(
            "INSERT INTO change (kind, key, value, stamp) VALUES (?,?,?,?)",
            (kind, key, value, randbits(62)),
        )
        version = int(cursor.lastrowid or 0)
        self._db.execute("DELETE FROM change WHERE version<=?", (version - self._keep,))
        return version


def _attempt(write: Callable[[], Any]) -> Any:
    try:
        return write()
    except Conflict as conflict:
        return conflict


def _create_private(path: Path) -> None:
    """Make the file before SQLite does, so that it (and its -wal, -shm) is never readable by others."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        path.chmod(0o600)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
