"""The rows of a ledger in one SQLite file, shared by every process of a host, one transaction at a time.

What was read is remembered, and believed only while `PRAGMA data_version`, asked inside the transaction, says that no
other connection has written since; what changed is written at the end, once per row however many steps changed it.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson

from router import budget_codec
from router.accounts import Standing, Tally
from router.admission import Charge, Estimate
from router.budget import Budget, Scope
from router.ledger import Subject
from router.terms import scope_value
from server.ledgers import steps
from server.ledgers.steps import NO_BUDGET, Reservation, Running, State

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), now_us INTEGER NOT NULL);
INSERT OR IGNORE INTO clock VALUES (1, 0);
CREATE TABLE IF NOT EXISTS budgets (
  version INTEGER PRIMARY KEY, at REAL NOT NULL, changed_by TEXT NOT NULL, text TEXT NOT NULL, budget TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS accounts (
  name TEXT PRIMARY KEY, bucket INTEGER NOT NULL, first INTEGER NOT NULL, edge_requests INTEGER NOT NULL,
  requests INTEGER NOT NULL, calls INTEGER NOT NULL, tokens INTEGER NOT NULL, nano_usd INTEGER NOT NULL,
  slow INTEGER NOT NULL, end_us INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS buckets (
  account TEXT NOT NULL, bucket INTEGER NOT NULL,
  requests INTEGER NOT NULL, calls INTEGER NOT NULL, tokens INTEGER NOT NULL, nano_usd INTEGER NOT NULL,
  slow INTEGER NOT NULL, PRIMARY KEY (account, bucket)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reservations (
  id TEXT PRIMARY KEY, state INTEGER NOT NULL, lease_us INTEGER NOT NULL, closed_us INTEGER,
  key TEXT NOT NULL, user TEXT NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL,
  tokens INTEGER NOT NULL, nano_usd INTEGER NOT NULL, charges TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS open_reservations ON reservations (lease_us) WHERE state = 0;
"""

PUT_STANDING = """
INSERT INTO accounts VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (name) DO UPDATE SET bucket = excluded.bucket,
  first = excluded.first, edge_requests = excluded.edge_requests, requests = excluded.requests, calls = excluded.calls,
  tokens = excluded.tokens, nano_usd = excluded.nano_usd, slow = excluded.slow, end_us = excluded.end_us"""
ADD_TO_BUCKET = """
INSERT INTO buckets VALUES (?,?,?,?,?,?,?) ON CONFLICT (account, bucket) DO UPDATE SET
  requests = requests + excluded.requests, calls = calls + excluded.calls, tokens = tokens + excluded.tokens,
  nano_usd = nano_usd + excluded.nano_usd, slow = slow + excluded.slow"""
PUT_RESERVATION = """
INSERT INTO reservations VALUES (?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET
  state = excluded.state, closed_us = excluded.closed_us"""
OPEN_LEASES: dict[Scope, str] = {
    "all": "SELECT count(*) FROM reservations WHERE state = 0 AND lease_us > ?",
    "key": "SELECT count(*) FROM reservations WHERE state = 0 AND lease_us > ? AND key = ?",
    "user": "SELECT count(*) FROM reservations WHERE state = 0 AND lease_us > ? AND user = ?",
    "tenant": "SELECT count(*) FROM reservations WHERE state = 0 AND lease_us > ? AND tenant = ?",
    "model": "SELECT count(*) FROM reservations WHERE state = 0 AND lease_us > ? AND model = ?",
}

SCOPES: tuple[Scope, ...] = ("key", "user", "tenant", "model")

REMEMBERED_ACCOUNTS = 4096
REMEMBERED_REQUESTS = 16_384
"""How many counted requests a process remembers, so that counting one twice changes nothing."""


def connect(path: Path, wait_s: float = 0.0) -> sqlite3.Connection:
    """A connection without transactions of its own making. `wait_s`: how long it waits for a file that is locked."""
    connection = sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
        # Checkpoints sync the disk; `server.ledgers.upkeep` makes them elsewhere. This is only the far bound (64 MiB).
        connection.execute("PRAGMA wal_autocheckpoint = 16384")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection) -> None:
    """Makes a new file a ledger. Raises sqlite3.Error, or ValueError for a file that is something else."""
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise ValueError(f"this file system does not allow SQLite's WAL mode (it gave {mode!r})")
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, SCHEMA_VERSION):
            raise ValueError(f"it was written by another version (schema {version}, this one reads {SCHEMA_VERSION})")
        for statement in SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


class SqliteRows:
    """`steps.Rows` inside `begin` .. `commit` or `rollback`. One thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._data_version = -1
        self._running: Running | None = None
        self._now_us: int | None = None
        self._kept_now_us: int | None = None
        self._standings: dict[str, Standing | None] = {}
        self._changed: set[str] = set()
        self._more: dict[tuple[str, int], Tally] = {}
        self._counted: OrderedDict[str, None] = OrderedDict()
        self._just_counted: list[str] = []

    def begin(self) -> None:
        """Raises sqlite3.OperationalError where another process holds the file."""
        self._execute("BEGIN IMMEDIATE")
        (data_version,) = self._execute("PRAGMA data_version").fetchone()
        if data_version != self._data_version or len(self._standings) > REMEMBERED_ACCOUNTS:
            self._forget()
            self._data_version = data_version

    def commit(self) -> None:
        self._write_buckets()
        if self._changed:
            found = ((name, self._standings[name]) for name in self._changed)
            rows = [
                (name, s.bucket, s.first, s.edge_requests, *s.total, s.end_us) for name, s in found if s is not None
            ]
            self._connection.executemany(PUT_STANDING, rows)
            self._changed.clear()
        if self._now_us != self._kept_now_us:
            self._execute("UPDATE clock SET now_us = ?", (self._now_us,))
            self._kept_now_us = self._now_us
        self._execute("COMMIT")
        self._just_counted.clear()

    def rollback(self) -> None:
        """Forgets everything this transaction did and everything remembered. Raises nothing."""
        try:
            if self._connection.in_transaction:
                self._execute("ROLLBACK")
        except sqlite3.Error:
            pass  # the file is gone or broken; what matters is that nothing is believed any more
        for id in self._just_counted:
            self._counted.pop(id, None)
        self._just_counted.clear()
        self._forget()

    def tick(self, now_us: int) -> int:
        """The ledger's time never goes back, over all processes and restarts: a clock that does reopens no window."""
        if self._now_us is None:
            ((self._now_us,),) = self._execute("SELECT now_us FROM clock").fetchall()
            self._kept_now_us = self._now_us
        self._now_us = max(self._now_us, now_us)
        return self._now_us

    def running(self) -> Running:
        if self._running is None:
            row = self._execute("SELECT version, budget, text FROM budgets ORDER BY version DESC LIMIT 1").fetchone()
            self._running = NO_BUDGET if row is None else steps.running(row[0], budget_codec.decode(row[1]), row[2])
        return self._running

    def put_budget(self, budget: Budget, text: str, by: str, at: float) -> int:
        version = self.running().version + 1
        self._execute("INSERT INTO budgets VALUES (?,?,?,?,?)", (version, at, by, text, budget_codec.encode(budget)))
        self._running = None
        return version

    def standing(self, account: str) -> Standing | None:
        if account in self._standings:
            return self._standings[account]
        row = self._execute("SELECT * FROM accounts WHERE name = ?", (account,)).fetchone()
        standing = None if row is None else Standing(row[1], row[2], row[3], Tally(*row[4:9]), row[9])
        self._standings[account] = standing
        return standing

    def put_standing(self, account: str, standing: Standing) -> None:
        self._standings[account] = standing
        self._changed.add(account)

    def buckets_through(self, account: str, bucket: int) -> Sequence[tuple[int, Tally]]:
        self._write_buckets()
        rows = self._execute("SELECT * FROM buckets WHERE account = ? AND bucket <= ?", (account, bucket))
        return [(row[1], Tally(*row[2:])) for row in rows]

    def drop_buckets_before(self, account: str, bucket: int) -> None:
        self._execute("DELETE FROM buckets WHERE account = ? AND bucket < ?", (account, bucket))

    def oldest_bucket(self, account: str) -> int | None:
        self._write_buckets()
        query = "SELECT bucket FROM buckets WHERE account = ? AND calls > 0 ORDER BY bucket LIMIT 1"
        row = self._execute(query, (account,)).fetchone()
        return None if row is None else int(row[0])

    def add_to_bucket(self, account: str, bucket: int, more: Tally) -> None:
        known = self._more.get((account, bucket))
        self._more[account, bucket] = more if known is None else known.plus(more)

    def reservation(self, id: str) -> Reservation | None:
        row = self._execute("SELECT * FROM reservations WHERE id = ?", (id,)).fetchone()
        if row is None:
            return None
        return Reservation(
            id=row[0],
            state=State(row[1]),
            lease_us=row[2],
            closed_us=row[3],
            subject=Subject(*row[4:8]),
            estimate=Estimate(*row[8:10]),
            charges=tuple(Charge(*each) for each in orjson.loads(row[10])),
        )

    def put_reservation(self, reservation: Reservation) -> None:
        r = reservation
        scopes = (scope_value(scope, r.subject) for scope in SCOPES)
        charges = orjson.dumps([[*charge] for charge in r.charges]).decode()
        row = (r.id, int(r.state), r.lease_us, r.closed_us, *scopes, *r.estimate, charges)
        self._execute(PUT_RESERVATION, row)

    def open_leases(self, scope: Scope, value: str, now_us: int) -> int:
        parameters: Iterable[object] = (now_us,) if scope == "all" else (now_us, value)
        ((count,),) = self._execute(OPEN_LEASES[scope], tuple(parameters)).fetchall()
        return int(count)

    def first_sight(self, id: str) -> bool:
        if id in self._counted:
            return False
        self._counted[id] = None
        self._just_counted.append(id)
        if len(self._counted) > REMEMBERED_REQUESTS:
            self._counted.popitem(last=False)
        return True

    def _write_buckets(self) -> None:
        if self._more:
            rows = [(account, bucket, *tally) for (account, bucket), tally in self._more.items()]
            self._connection.executemany(ADD_TO_BUCKET, rows)
            self._more.clear()

    def _forget(self) -> None:
        self._standings.clear()
        self._changed.clear()
        self._more.clear()
        self._running = None
        self._now_us = self._kept_now_us = None
        self._data_version = -1
