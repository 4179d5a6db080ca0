"""The account of a run: what each attempt may cost is written down before it is sent, and what it did cost after.

A charge is set aside at its worst case, in the same database as the replies and durably, so it counts whatever becomes
of the attempt: a time-out, a cut connection, a killed process. The usage that a reply tells takes its place. The cap is
held by the database, so it also holds between processes. All functions run inside the store's transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tinyllm.config import PriceSection
from tinyllm.spending.charges import Bill, Cap, Charge, Lost, Spent, cost

SCHEMA = (
    """CREATE TABLE spent (                  -- what each run has paid for, whatever became of the run since
        run TEXT NOT NULL,
        teacher TEXT NOT NULL,
        replies INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        seconds REAL NOT NULL,
        cost INTEGER DEFAULT 0,            -- in 1e-12 US dollars; NULL: from version 2, which kept tokens alone
        lost INTEGER NOT NULL DEFAULT 0,   -- attempts whose cost nobody knows, with what they may have cost
        lost_tokens INTEGER NOT NULL DEFAULT 0,
        lost_cost INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (run, teacher)
    ) WITHOUT ROWID""",
    """CREATE TABLE charges (                -- attempts that were sent and of which nothing is known yet
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
"""From version 2 of the store."""

SHOWN_AS_NEW = (
    "CREATE TEMP VIEW spent AS SELECT *, NULL AS cost, 0 AS lost, 0 AS lost_tokens, 0 AS lost_cost FROM main.spent",
    SCHEMA[1].replace("CREATE TABLE", "CREATE TEMP TABLE"),
)
"""For a store of version 2 that can only be read."""

_ADD = (
    "INSERT INTO spent (run, teacher, replies, prompt_tokens, completion_tokens, cached_tokens, seconds, cost, lost, "
    "lost_tokens, lost_cost) VALUES (?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (run, teacher) DO UPDATE SET "
    "replies = replies + excluded.replies, prompt_tokens = prompt_tokens + excluded.prompt_tokens, "
    "completion_tokens = completion_tokens + excluded.completion_tokens, cached_tokens = cached_tokens + "
    "excluded.cached_tokens, seconds = seconds + excluded.seconds, cost = cost + excluded.cost, lost = lost + "
    "excluded.lost, lost_tokens = lost_tokens + excluded.lost_tokens, lost_cost = lost_cost + excluded.lost_cost"
)
_PER_DOLLAR = 10**12  # units in which sums are kept: they add up without an error, and a token costs a whole number


def settle(db: sqlite3.Connection, bills: Sequence[Bill], seconds: float) -> None:
    """Put what replies did cost in the place of what was set aside; the seconds, which all share, go to the first."""
    sums: dict[tuple[str, str], list[int]] = {}  # one row a teacher, not one a reply
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
    """Give back what was set aside for attempts that have cost nothing."""
    db.executemany("DELETE FROM charges WHERE id = ?", [(charge,) for charge in charges])


def free_resumed(db: sqlite3.Connection, requests: Iterable[tuple[str, str]]) -> None:
    """Give back what an earlier process set aside for a request that has cost nothing.

    Args:
        requests: runs and keys.
    """
    for run, key in requests:
        if (charge := _oldest(db, run, key)) is not None:
            free(db, [charge])


def lose(db: sqlite3.Connection, attempts: Iterable[Lost]) -> None:
    """Keep for ever what was set aside for attempts whose cost nobody will know."""
    for attempt in attempts:
        charge = attempt.charge
        if attempt.id is not None:
            free(db, [attempt.id])
        db.execute(_ADD, (charge.run, charge.teacher, 0, 0, 0, 0, 0.0, 0, 1, charge.tokens, _units(charge.usd)))


def set_aside(db: sqlite3.Connection, charges: Sequence[Charge], cap: Cap) -> list[int | None]:
    """Set aside what attempts of one run can cost, in their order; return ids, None where the cap leaves no room."""
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
        too_dear = cap.usd is not None and price > 0 and paid + price > _units(cap.usd)
        if too_dear or (cap.tokens is not None and tokens + charge.tokens > cap.tokens):
            ids.append(None)
            continue
        paid, tokens = paid + price, tokens + charge.tokens
        row = (charge.run, charge.teacher, bytes.fromhex(charge.key), charge.tokens, price)
        ids.append(
            db.execute("INSERT INTO charges (run, teacher, key, tokens, cost) VALUES (?,?,?,?,?)", row).lastrowid
        )
    return ids


def spent(db: sqlite3.Connection, run: str | None = None) -> dict[tuple[str, str], Spent]:
    """Return what runs have paid for, by run and teacher; None: all runs."""
    where, values = ("TRUE", ()) if run is None else ("run = ?", (run,))
    known: dict[tuple[str, str], Spent] = {}
    rows = db.execute(
        "SELECT run, teacher, cost, lost_cost, lost, lost_tokens, replies, prompt_tokens, completion_tokens, "  # noqa: S608 - constants
        f"cached_tokens, seconds FROM spent WHERE {where}",
        values,
    )
    for name, teacher, paid, lost_cost, lost, lost_tokens, replies, prompt, completion, cached, seconds in rows:
        usd = None if paid is None else paid / _PER_DOLLAR
        known[name, teacher] = Spent(
            replies, prompt, completion, cached, seconds, usd, lost, lost_tokens, lost_cost / _PER_DOLLAR
        )
    under_way = db.execute(
        f"SELECT run, teacher, count(*), sum(tokens), sum(cost) FROM charges WHERE {where} GROUP BY 1, 2",  # noqa: S608 - constants
        values,
    )
    for name, teacher, count, tokens, price in under_way:
        had = known.get((name, teacher), Spent())
        known[name, teacher] = replace(
            had,
            lost=had.lost + count,
            lost_tokens=had.lost_tokens + tokens,
            lost_usd=had.lost_usd + price / _PER_DOLLAR,
        )
    return known


def price_tokens(db: sqlite3.Connection, run: str, prices: Mapping[str, PriceSection | None]) -> None:
    """Give what version 2 of the store counted in tokens alone its price in dollars."""
    rows = db.execute(
        "SELECT teacher, prompt_tokens, completion_tokens, cached_tokens FROM spent WHERE run = ? AND cost IS NULL",
        (run,),
    ).fetchall()
    for teacher, *tokens in rows:
        paid = _units(cost(prices.get(teacher), *tokens))
        db.execute("UPDATE spent SET cost = ? WHERE run = ? AND teacher = ?", (paid, run, teacher))


def _units(usd: float) -> int:
    return round(usd * _PER_DOLLAR)


def _oldest(db: sqlite3.Connection, run: str, key: str) -> int | None:
    row = db.execute("SELECT min(id) FROM charges WHERE run = ? AND key = ?", (run, bytes.fromhex(key))).fetchone()
    return None if row is None else row[0]
