"""The account of a run: what each attempt may cost, written before it is sent, and what it cost, written after.

An attempt is charged with its maximum cost in the same database as the replies. The charge is on the disk before the
attempt is sent, so it counts after a timeout, a lost connection or a killed process, too. The usage in the reply
replaces it. The database enforces the cap, so the cap also holds between processes. All functions run inside the
store's transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tinyllm.config import BudgetSection, PriceSection
from tinyllm.spending.charges import Bill, Charge, Lost, Spent, cost

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

_ADD = (
    "INSERT INTO spent (run, teacher, replies, prompt_tokens, completion_tokens, cached_tokens, seconds, cost, lost, "
    "lost_tokens, lost_cost) VALUES (?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (run, teacher) DO UPDATE SET "
    "replies = replies + excluded.replies, prompt_tokens = prompt_tokens + excluded.prompt_tokens, "
    "completion_tokens = completion_tokens + excluded.completion_tokens, cached_tokens = cached_tokens + "
    "excluded.cached_tokens, seconds = seconds + excluded.seconds, cost = cost + excluded.cost, lost = lost + "
    "excluded.lost, lost_tokens = lost_tokens + excluded.lost_tokens, lost_cost = lost_cost + excluded.lost_cost"
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
        if bill.charge is None and bill.resumed is not None:
            free_resumed(db, [(bill.run, bill.resumed)])
    free(db, [bill.charge for bill in bills if bill.charge is not None])
    for (run, teacher), (*tokens, paid) in sums.items():
        db.execute(_ADD, (run, teacher, *tokens, seconds, paid, 0, 0, 0))
        seconds = 0.0


def free(db: sqlite3.Connection, charges: Iterable[int]) -> None:
    """Delete the charges of attempts that cost nothing."""
    db.executemany("DELETE FROM charges WHERE id = ?", [(charge,) for charge in charges])


def free_resumed(db: sqlite3.Connection, requests: Iterable[tuple[str, str]]) -> None:
    """Delete the charge that an earlier process made for each request, given as run and key."""
    db.executemany(
        "DELETE FROM charges WHERE id = (SELECT min(id) FROM charges WHERE run = ? AND key = ?)",
        [(run, bytes.fromhex(key)) for run, key in requests],
    )


def lose(db: sqlite3.Connection, attempts: Iterable[Lost]) -> None:
    """Keep the charges of attempts whose cost stays unknown, for good."""
    for attempt in attempts:
        charge = attempt.charge
        if attempt.id is not None:
            free(db, [attempt.id])
        db.execute(_ADD, (charge.run, charge.teacher, 0, 0, 0, 0, 0.0, 0, 1, charge.tokens, _units(charge.usd)))


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
    for name, teacher, paid, lost_cost, *counts in db.execute(
        "SELECT run, teacher, cost, lost_cost, replies, prompt_tokens, completion_tokens, cached_tokens, seconds, "  # noqa: S608 - constants
        f"lost, lost_tokens FROM spent WHERE {where}",
        values,
    ):
        *used, lost, lost_tokens = counts
        usd = None if paid is None else paid / _PER_DOLLAR
        known[name, teacher] = Spent(*used, usd, lost, lost_tokens, lost_cost / _PER_DOLLAR)
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
