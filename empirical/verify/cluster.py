"""Where tasks run: on this machine, or on a Dask cluster through joblib's backend."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from joblib import parallel_config

from scaling.sizes.errors import InvalidInput

PATIENCE = 3
"""Seconds in which a scheduler must answer."""


class Backend(StrEnum):
    """Who does the work of wide mode."""

    LOCAL = "local"
    DASK = "dask"


@contextmanager
def workers_of(backend: str, scheduler: str | None) -> Iterator[None]:
    """Send the tasks of wide mode there while the context lasts.

    A task is a function of its description, so a task whose worker dies is run again by another,
    with the same result.

    Raises:
        InvalidInput: for an address without a backend or the reverse, a scheduler that does not
            answer or has no workers, and workers that lack this package.
    """
    if Backend(backend) is Backend.LOCAL:
        if scheduler is not None:
            raise InvalidInput(
                f"--scheduler {scheduler} with the backend 'local'",
                "--backend dask with a scheduler",
                "add --backend dask, or leave --scheduler out",
            )
        yield
        return
    if scheduler is None:
        raise InvalidInput(
            "--backend dask without the address of a scheduler",
            "the address of a running Dask scheduler",
            "start one with `dask scheduler`, workers with `dask worker ADDRESS`, and add "
            "--scheduler ADDRESS, such as tcp://127.0.0.1:8786",
        )
    from distributed import Client  # one of the packages of the extra 'cluster'

    _refuse_unless_there(scheduler)
    try:
        client = Client(  # type: ignore[no-untyped-call]
            scheduler, timeout=f"{PATIENCE}s", set_as_default=False
        )
    except (OSError, ValueError, TypeError) as error:
        raise _nobody_at(scheduler, type(error).__name__) from None
    with client:
        _refuse_unless_able(client, scheduler)
        with parallel_config(backend="dask", client=client, n_jobs=-1):
            yield


def _refuse_unless_there(address: str) -> None:
    """Ask who listens at an address, once.

    A client would ask again and again, and wait for ten seconds more when it gives up.
    """
    from distributed.comm.core import connect
    from distributed.security import Security

    async def asked() -> str:
        security = Security().get_connection_args("client")  # type: ignore[no-untyped-call]
        comm = await connect(address, timeout=PATIENCE, **security)  # type: ignore[no-untyped-call]
        try:
            await comm.write({"op": "identity", "reply": True})
            return str((await comm.read())["type"])
        finally:
            comm.abort()

    try:
        found = asyncio.run(asyncio.wait_for(asked(), 2 * PATIENCE))
    except Exception as error:  # whatever else listens there may answer anything
        raise _nobody_at(address, type(error).__name__) from None
    if found != "Scheduler":
        raise _nobody_at(address, f"a {found} answers")


def _nobody_at(address: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"no Dask scheduler at '{address}' ({why})",
        "the address of a running Dask scheduler, reachable from here",
        "start one with `dask scheduler`, and check the address that it prints",
    )


def _refuse_unless_able(client: object, scheduler: str) -> None:
    try:
        able = client.run(_has_package)  # type: ignore[attr-defined]
    except Exception as error:  # whatever a worker raised comes back as it was
        able = {"a worker": f"{type(error).__name__}: {error}"}
    if not able:
        raise InvalidInput(
            f"a Dask scheduler at '{scheduler}' without workers",
            "at least one worker",
            f"start one: dask worker {scheduler}",
        )
    wrong = next((f"{worker} ({said})" for worker, said in able.items() if said is not True), None)
    if wrong is not None:
        raise InvalidInput(
            f"the Dask worker {wrong}",
            "workers that can import empirical.wide",
            "install scaling[empirical] where the workers run, in the same version",
        )


def _has_package() -> bool | str:
    try:
        import empirical.wide  # noqa: F401
    except ImportError as error:
        return str(error)
    return True
