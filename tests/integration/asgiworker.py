"""A worker of uvicorn's for gunicorn, on asyncio's loop where uvloop is installed, too."""

from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker


class Worker(UvicornWorker):
    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        **UvicornWorker.CONFIG_KWARGS,
        "loop": "asyncio",
    }
