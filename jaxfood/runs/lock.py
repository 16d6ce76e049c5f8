"""One process group at a time writes to a run: a lock of the operating system, which goes when its holder dies."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from jaxfood import processes
from jaxfood.errors import UserError
from jaxfood.files import is_remote, reason

LOCK = ".lock"
HOLDER = ".lock-holder"  # who holds it, for the message of whoever comes second


@contextmanager
def hold(workdir: Path) -> Iterator[str]:
    """Hold a run while it is written to. The first of several processes holds it for all.

    Its directory is made if need be, and removed where nothing was written there.

    Yields:
        What there is to say: "", or that and why this run is not locked (a bucket, a disk without locks).

    Raises:
        UserError: another process holds it, or its directory cannot be made.
    """
    if is_remote(workdir):
        yield f"{workdir} is in a bucket, which has no locks: see that nobody else trains this run"
        return
    lock = FileLock(workdir / LOCK, thread_local=False)
    with processes.together():
        said = _acquire(lock, workdir) if processes.is_first() else ""
    try:
        yield said
    finally:
        if processes.is_first():
            with suppress(OSError):
                (workdir / HOLDER).unlink(missing_ok=True)
            lock.release()
            if workdir.is_dir() and {entry.name for entry in workdir.iterdir()} <= {LOCK}:
                with suppress(OSError):  # another process may have come by now
                    (workdir / LOCK).unlink(missing_ok=True)
                    workdir.rmdir()


def _acquire(lock: FileLock, workdir: Path) -> str:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{workdir} is in use by {_holder(workdir)}: wait until it has ended, stop it, or take another --workdir"
        ) from None
    except (OSError, NotImplementedError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        if not workdir.is_dir():
            raise UserError(f"cannot write to {workdir} ({why}); choose another --workdir") from error
        return f"{workdir} cannot be locked ({why}): see that nobody else trains this run"
    with suppress(OSError):
        (workdir / HOLDER).write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
    return ""


def _holder(workdir: Path) -> str:
    try:
        return (workdir / HOLDER).read_text(encoding="utf-8") or "another process"
    except (OSError, UnicodeDecodeError):
        return "another process"
