"""Listening: what is refused before a server starts, and how it stops."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from functools import partial

import uvicorn
from fastapi import FastAPI

from trimtab.errors import InputError
from trimtab.serve.guard import LOCAL

KEY_VARIABLE = "TRIMTAB_API_KEY"
SHORTEST_KEY = 16
_CLOSING = 5  # seconds after the grace in which connections end; those that do not are cut


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_door(host: str, key: str | None) -> tuple[str, ...] | None:
    """The names by which browsers may call the server (None: any). Raises `InputError` for an open door without key."""
    if key is not None and (len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key):
        raise InputError(f"The API key must have at least {SHORTEST_KEY} printable ASCII characters and no space.")
    if is_loopback(host):
        return LOCAL
    if key is None:
        raise InputError(
            f"--host {host} lets other machines in, which needs a key: set {KEY_VARIABLE} (or give --api-key). "
            "Without --host the server listens on this machine alone."
        )
    return None


def listen(app: FastAPI, host: str, port: int, *, grace: float, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; requests under way then get `grace` seconds. Port 0 takes a free one.

    `ready` is called with the address once connections are taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise InputError(f"Cannot listen on {host}, port {port}: {error.strerror or error}.") from None
    with listener:
        name = f"[{host}]" if ":" in host else host
        ready(f"http://{name}:{listener.getsockname()[1]}")
        cut = int(grace) + _CLOSING
        config = uvicorn.Config(
            app, log_level="warning", server_header=False, timeout_graceful_shutdown=cut, lifespan="on"
        )  # fmt: skip
        _Server(config, partial(app.state.service.worker.stop, grace)).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Lets the worker finish, or end its texts with an error, while the answers under way are still being sent."""

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None]) -> None:
        super().__init__(config)
        self.stop = stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called at SIGINT and SIGTERM."""
        stopping = asyncio.create_task(asyncio.to_thread(self.stop))
        await super().shutdown(sockets)
        await stopping
