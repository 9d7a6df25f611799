"""A worker of uvicorn's for gunicorn, on asyncio's loop where uvloop is installed, too."""

from uvicorn_worker import UvicornWorker


class Worker(UvicornWorker):
    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "loop": "asyncio"}
