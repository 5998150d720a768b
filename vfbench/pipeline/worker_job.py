"""The job in a worker that another process has started: it announces where it works, and ends with an exit code."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from typing import Any

from vfbench.errors import Interrupted, UserError
from vfbench.utils import console

_announce_to: Callable[[Mapping[str, str]], None] | None = None  # set in a worker


def is_worker() -> bool:
    """True in a worker: it does the work itself, whatever number of workers the options ask for."""
    return _announce_to is not None


def announce(folder: str, text: str) -> None:
    """Tell the process that started this one, if any, where the work is, by path or URL, and what it is."""
    if _announce_to is not None:
        _announce_to({"folder": folder, "text": text})


def carry_out(function: str, options: Mapping[str, Any], announce_to: Callable[[Mapping[str, str]], None]) -> int:
    """Call a function, named as `module:name`, with these keyword arguments; returns the exit code.

    `announce_to` gets what the function announces. Errors are printed on stderr.
    """
    global _announce_to
    _announce_to = announce_to
    console.set_verbosity("quiet")
    module, name = function.split(":")
    try:
        with redirect_stdout(sys.stderr):  # what plug-ins print does not mix with results
            getattr(importlib.import_module(module), name)(**options)
    except UserError as error:
        console.error(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return Interrupted.exit_code
    except Exception:  # a fault of the program: told in full
        console.error(traceback.format_exc())
        return 1
    return 0
