"""Many queries at once over a few connections, in a database of your choice.

pip install "sqlalchemy[asyncio]" aiosqlite
python examples/database.py [URL]     # postgresql+asyncpg://…, mysql+aiomysql://…
"""

import asyncio
import sys
import tempfile

from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select
from sqlalchemy.ext.asyncio import create_async_engine

import fastloop

metadata = MetaData()
orders = Table(
    "fastloop_example_orders",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("customer", Integer, index=True),
    Column("amount", Integer),
)


async def total(engine, customer):
    async with engine.connect() as connection:  # waits for one of the pool
        query = select(func.sum(orders.c.amount)).where(orders.c.customer == customer)
        return await connection.scalar(query)


async def work(url):
    engine = create_async_engine(url, pool_size=5, max_overflow=0)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
            rows = [{"customer": n % 50, "amount": n} for n in range(5000)]
            await connection.execute(insert(orders), rows)
        totals = await asyncio.gather(*(total(engine, n) for n in range(50)))
        async with engine.begin() as connection:
            await connection.run_sync(metadata.drop_all)
        print(len(totals), "customers ordered for", sum(totals))
    finally:
        await engine.dispose()


async def main():
    if sys.argv[1:]:
        await work(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            await work(f"sqlite+aiosqlite:///{folder}/orders.db")


if __name__ == "__main__":
    fastloop.run(main())
