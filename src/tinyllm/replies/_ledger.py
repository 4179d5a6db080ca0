"""The account of a run: what each attempt may cost, written before it is sent, and what it cost, written after.

An attempt is charged with its maximum cost in the same database as the replies. The charge is on the disk before the
attempt is sent, so it counts after a timeout, a lost connection or a killed process, too. The usage in the reply
replaces it. The database enforces the cap, so the cap also holds between processes. All functions run inside the
store's transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tinyllm.config import BudgetSection, PriceSection
from tinyllm.spending.charges import Bill, Charge, Spent, cost

SCHEMA = (
    """CREATE TABLE spent (                  -- what each run has paid, whatever happened to the run later
        run TEXT NOT NULL,
        teacher TEXT NOT NULL,
        replies INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        seconds REAL NOT NULL,
        cost INTEGER DEFAULT 0,            -- in 1e-12 US dollars; NULL: from version 2, which kept tokens only
        lost INTEGER NOT NULL DEFAULT 0,   -- attempts of unknown cost, with their maximum cost
        lost_tokens INTEGER NOT NULL DEFAULT 0,
        lost_cost INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (run, teacher)
    ) WITHOUT ROWID""",
    """CREATE TABLE charges (                -- attempts that were sent and have no outcome yet
        id INTEGER PRIMARY KEY,
        run TEXT NOT NULL,
        teacher TEXT NOT NULL,
        key BLOB NOT NULL,
        tokens INTEGER NOT NULL,
        cost INTEGER NOT NULL
    )""",
    "CREATE INDEX charges_of_run ON charges (run, key)",
)
UPGRADE = tuple(
    f"ALTER TABLE spent ADD COLUMN {column}"
    for column in (
        "cost INTEGER", "lost INTEGER NOT NULL DEFAULT 0", "lost_tokens INTEGER NOT NULL DEFAULT 0",
        "lost_cost INTEGER NOT NULL DEFAULT 0",
    )
) + SCHEMA[1:]  # fmt: skip
"""Converts a store of version 2."""

SHOWN_AS_NEW = (
    "CREATE TEMP VIEW spent AS SELECT *, NULL AS cost, 0 AS lost, 0 AS lost_tokens, 0 AS lost_cost FROM main.spent",
    SCHEMA[1].replace("CREATE TABLE", "CREATE TEMP TABLE"),
)
"""Makes a read-only store of version 2 look like the current version."""

_SUMS = (
    "replies", "prompt_tokens", "completion_tokens", "cached_tokens", "seconds", "cost", "lost", "lost_tokens",
    "lost_cost",
)  # fmt: skip
_ADD = (
    f"INSERT INTO spent (run, teacher, {', '.join(_SUMS)}) VALUES (?,?{',?' * len(_SUMS)}) "  # noqa: S608 - constants
    f"ON CONFLICT (run, teacher) DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in _SUMS)}"
)
_PER_DOLLAR = 10**12  # amounts are integers: sums have no rounding error


def settle(db: sqlite3.Connection, bills: Sequence[Bill], seconds: float) -> None:
    """Replace charges by what the replies cost. All bills share the seconds, so the first row gets them."""
    sums: dict[tuple[str, str], list[int]] = {}  # one row per teacher, not one per reply
    for bill in bills:
        amounts = (1, bill.prompt_tokens, bill.completion_tokens, bill.cached_tokens, _units(bill.usd))
        known = sums.setdefault((bill.run, bill.teacher), [0] * len(amounts))
        for place, amount in enumerate(amounts):
            known[place] += amount
        if bill.charge is not None:
            free(db, bill.charge)
        elif bill.resumed is not None:
            free_resumed(db, bill.run, bill.resumed)
    for (run, teacher), (*tokens, paid) in sums.items():
        db.execute(_ADD, (run, teacher, *tokens, seconds, paid, 0, 0, 0))
        seconds = 0.0


def free(db: sqlite3.Connection, charge: int) -> None:
    """Delete the charge of an attempt that cost nothing."""
    db.execute("DELETE FROM charges WHERE id = ?", (charge,))


def free_resumed(db: sqlite3.Connection, run: str, key: str) -> None:
    """Delete the charge that an earlier process made for a request."""
    oldest = "SELECT min(id) FROM charges WHERE run = ? AND key = ?"
    db.execute(f"DELETE FROM charges WHERE id = ({oldest})", (run, bytes.fromhex(key)))  # noqa: S608 - a constant


def lose(db: sqlite3.Connection, most: Charge, charge: int | None) -> None:
    """Keep what an attempt of unknown cost may have cost, for good. `charge`: id of its charge, if it has one."""
    if charge is not None:
        free(db, charge)
    db.execute(_ADD, (most.run, most.teacher, 0, 0, 0, 0, 0.0, 0, 1, most.tokens, _units(most.usd)))


def lapse(db: sqlite3.Connection, run: str, teacher: str) -> int:
    """Keep, for good, what attempts without an outcome may have cost: nobody waits for them now. Return how many."""
    rows = db.execute(
        "DELETE FROM charges WHERE run = ? AND teacher = ? RETURNING tokens, cost", (run, teacher)
    ).fetchall()
    if rows:
        tokens, price = map(sum, zip(*rows, strict=True))
        db.execute(_ADD, (run, teacher, 0, 0, 0, 0, 0.0, 0, len(rows), tokens, price))
    return len(rows)


def set_aside(db: sqlite3.Connection, charges: Sequence[Charge], cap: BudgetSection | None) -> list[int | None]:
    """Charge attempts of one run, in order. Return the ids; None where the cap leaves no room."""
    if not charges:
        return []
    run = charges[0].run
    paid, tokens = db.execute(
        "SELECT total(cost), total(tokens) FROM (SELECT coalesce(cost, 0) + lost_cost AS cost, prompt_tokens + "
        "completion_tokens + lost_tokens AS tokens FROM spent WHERE run = :run UNION ALL "
        "SELECT cost, tokens FROM charges WHERE run = :run)",
        {"run": run},
    ).fetchone()
    ids: list[int | None] = []
    for charge in charges:
        price = _units(charge.usd)
        too_dear = cap is not None and cap.usd is not None and price > 0 and paid + price > _units(cap.usd)
        too_long = cap is not None and cap.tokens is not None and tokens + charge.tokens > cap.tokens
        if too_dear or too_long:
            ids.append(None)
            continue
        paid, tokens = paid + price, tokens + charge.tokens
        row = (charge.run, charge.teacher, bytes.fromhex(charge.key), charge.tokens, price)
        ids.append(
            db.execute("INSERT INTO charges (run, teacher, key, tokens, cost) VALUES (?,?,?,?,?)", row).lastrowid
        )
    return ids


def spent(db: sqlite3.Connection, run: str | None = None) -> dict[tuple[str, str], Spent]:
    """Return what a run (None: every run) has paid, by run and teacher."""
    where, values = ("TRUE", ()) if run is None else ("run = ?", (run,))
    known: dict[tuple[str, str], Spent] = {}
    for name, teacher, replies, prompt, completion, cached, seconds, paid, lost, lost_tokens, lost_cost in db.execute(
        f"SELECT run, teacher, {', '.join(_SUMS)} FROM spent WHERE {where}",  # noqa: S608 - constants
        values,
    ):
        usd = None if paid is None else paid / _PER_DOLLAR
        known[name, teacher] = Spent(
            replies, prompt, completion, cached, seconds, usd, lost, lost_tokens, lost_cost / _PER_DOLLAR
        )
    for name, teacher, count, tokens, price in db.execute(
        f"SELECT run, teacher, count(*), sum(tokens), sum(cost) FROM charges WHERE {where} GROUP BY 1, 2",  # noqa: S608 - constants
        values,
    ):
        had = known.get((name, teacher), Spent())
        known[name, teacher] = replace(
            had, lost=had.lost + count, lost_tokens=had.lost_tokens + tokens,
            lost_usd=had.lost_usd + price / _PER_DOLLAR,
        )  # fmt: skip
    return known


def price_tokens(db: sqlite3.Connection, run: str, prices: Mapping[str, PriceSection | None]) -> None:
    """Compute dollars for what version 2 of the store counted in tokens only."""
    rows = db.execute(
        "SELECT teacher, prompt_tokens, completion_tokens, cached_tokens FROM spent WHERE run = ? AND cost IS NULL",
        (run,),
    ).fetchall()
    for teacher, *tokens in rows:
        paid = _units(cost(prices.get(teacher), *tokens))
        db.execute("UPDATE spent SET cost = ? WHERE run = ? AND teacher = ?", (paid, run, teacher))


def _units(usd: float) -> int:
    return round(usd * _PER_DOLLAR)
