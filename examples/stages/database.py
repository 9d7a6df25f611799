"""A bank on SQLAlchemy's async engine and an SQLite file.

Clerks move money between accounts, each transfer a transaction with two reads and two
writes, while auditors read balances. The money in the bank must stay the same.
"""

import asyncio
import random
import tempfile
from pathlib import Path

from sqlalchemy import BigInteger, event, func, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from .checks import check

ACCOUNTS = 200
OPENING = 10_000
CLERKS = 4
AUDITORS = 4


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int] = mapped_column(BigInteger)


def make_engine(folder):
    engine = create_async_engine(f"sqlite+aiosqlite:///{Path(folder, 'bank.db')}")

    @event.listens_for(engine.sync_engine, "connect")
    def tune(connection, _):
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=OFF")
        cursor.close()

    return engine


def prepare(transactions):
    rng = random.Random(3)
    transfers = [
        (*rng.sample(range(ACCOUNTS), 2), rng.randrange(1, 50))
        for _ in range(transactions // 2)
    ]
    audits = [rng.randrange(ACCOUNTS) for _ in range(transactions - len(transfers))]

    async def work(engine, progress):
        session = async_sessionmaker(engine, expire_on_commit=False)
        one_writer = asyncio.Lock()  # as SQLite has it
        moved = 0
        read = 0

        async def clerk(jobs):
            nonlocal moved
            for source, target, amount in jobs:
                async with one_writer, session() as db, db.begin():
                    giver = await db.get_one(Account, source + 1)
                    taker = await db.get_one(Account, target + 1)
                    giver.balance -= amount
                    taker.balance += amount
                moved += amount
                progress()

        async def auditor(jobs):
            nonlocal read
            for number in jobs:
                async with session() as db:
                    near = select(Account.balance).where(
                        Account.id.between(number + 1, number + 10)
                    )
                    balances = (await db.scalars(near)).all()
                read += len(balances)
                progress()

        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with session() as db, db.begin():
            db.add_all(Account(id=n + 1, balance=OPENING) for n in range(ACCOUNTS))
        async with asyncio.TaskGroup() as group:
            for n in range(CLERKS):
                group.create_task(clerk(transfers[n::CLERKS]))
            for n in range(AUDITORS):
                group.create_task(auditor(audits[n::AUDITORS]))
        async with session() as db:
            total = await db.scalar(select(func.sum(Account.balance)))
            accounts = (await db.scalars(select(Account).order_by(Account.id))).all()
        checksum = sum(account.id * account.balance for account in accounts)
        return {"moved": moved, "read": read, "total": total, "checksum": checksum}

    async def run(progress):
        with tempfile.TemporaryDirectory(prefix="fastloop-tour-") as folder:
            engine = make_engine(folder)
            try:
                facts = await work(engine, progress)
            finally:
                await engine.dispose()
        balances = [OPENING] * ACCOUNTS
        for source, target, amount in transfers:
            balances[source] -= amount
            balances[target] += amount
        expected = sum((n + 1) * balance for n, balance in enumerate(balances))
        check(
            facts,
            moved=sum(amount for _, _, amount in transfers),
            read=sum(min(10, ACCOUNTS - number) for number in audits),
            total=ACCOUNTS * OPENING,
            checksum=expected,
        )
        return facts

    return run
