"""SQLAlchemy's async engine, which runs its own code in greenlets, on four drivers."""

import asyncio

import pytest
from sqlalchemy import ForeignKey, func, select, text
from sqlalchemy.ext.asyncio import (
    AsyncAttrs,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

DRIVERS = ["aiosqlite", "asyncpg", "psycopg", "aiomysql"]


@pytest.fixture(params=DRIVERS)
def url(request, tmp_path):
    if request.param == "aiosqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'file.db'}"
    service = "mysql" if request.param == "aiomysql" else "postgres"
    scheme, rest = request.getfixturevalue(service).split("://", 1)
    return f"{scheme}+{request.param}://{rest}"


def models_of(prefix):
    class Base(AsyncAttrs, DeclarativeBase):
        pass

    class User(Base):
        __tablename__ = f"{prefix}_user"
        id: Mapped[int] = mapped_column(primary_key=True)
        balance: Mapped[int] = mapped_column(default=0)
        orders: Mapped[list["Order"]] = relationship(back_populates="user")

    class Order(Base):
        __tablename__ = f"{prefix}_order"
        id: Mapped[int] = mapped_column(primary_key=True)
        user_id: Mapped[int] = mapped_column(ForeignKey(f"{prefix}_user.id"))
        user: Mapped["User"] = relationship(back_populates="orders")

    for cls in (User, Order):
        cls.__annotations__ = {}
    return Base, User, Order


def test_sessions(run, url, unique):
    base, user_class, order_class = models_of(unique)

    async def main():
        engine = create_async_engine(url, pool_size=3, max_overflow=2)
        async with engine.begin() as connection:
            await connection.run_sync(base.metadata.create_all)
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        try:

            async def one(number):
                async with sessions() as session, session.begin():
                    user = user_class(balance=number)
                    user.orders = [order_class() for _ in range(3)]
                    session.add(user)

            await asyncio.gather(*(one(number) for number in range(20)))
            async with sessions() as session:
                users = (await session.scalars(select(user_class))).all()
                assert sorted(user.balance for user in users) == list(range(20))
                assert len(await users[0].awaitable_attrs.orders) == 3
                result = await session.stream(select(order_class.id))
                assert len([row async for row in result]) == 60

            with pytest.raises(ZeroDivisionError):
                async with sessions() as session, session.begin():
                    session.add(user_class(balance=99))
                    await session.flush()
                    raise ZeroDivisionError
            async with sessions() as session:
                count = select(func.count()).select_from(user_class)
                assert await session.scalar(count) == 20
        finally:
            async with engine.begin() as connection:
                await connection.run_sync(base.metadata.drop_all)
            await engine.dispose()

    run(main())


def test_cancelled_checkout_and_query(run, url):
    async def main():
        engine = create_async_engine(url, pool_size=1, max_overflow=0)
        async with engine.connect():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02), engine.connect():
                    pass
        if "postgres" in url:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), engine.connect() as connection:
                    await connection.execute(text("select pg_sleep(3600)"))
        elif "mysql" in url:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), engine.connect() as connection:
                    await connection.execute(text("select sleep(3600)"))
        async with engine.connect() as connection:
            assert await connection.scalar(text("select 1")) == 1
        await engine.dispose()

    run(main())
