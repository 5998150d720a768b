"""Names of processes in files that several machines share: machine and process number.

3f2a90c1.4711     process 4711 of a machine, as it has run since it was last started
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from pathlib import Path

_OF_THE_MACHINE = ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid")  # its start, and the container's processes


@functools.cache
def machine_id() -> str:
    """Eight hexadecimal digits that tell this machine, since its last start, and this container from all others."""
    parts = [platform.node()]
    for path in map(Path, _OF_THE_MACHINE):
        try:
            parts.append(str(path.readlink()) if path.is_symlink() else path.read_text())
        except OSError:  # not on Linux
            continue
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def process_id() -> str:
    """Name of this process."""
    return f"{machine_id()}.{os.getpid()}"


def has_ended(name: str) -> bool:
    """True where a process of this machine has ended; False for one that runs, and for one of another machine."""
    machine, _, number = name.partition(".")
    if machine != machine_id():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # a process of another user
        return False
    return False
