"""What a user can do wrong, and the exit code each mistake ends with.

This module imports nothing heavy, so that `vfbench --help` and a mistyped flag answer at once.

    UserError                    2   the request itself is wrong: an unknown name, flag or option, too few samples
    +-- Incomplete               1   finished, but part of it is missing
    +-- GateFailed               3   a score is worse than the rule allows
    +-- MissingData              4   data or weights are missing, damaged or not what they claim to be
    +-- BadEnvironment           5   the machine cannot do it: not writable, disk full, folder in use
    +-- Interrupted            130   stopped by the user; the message carries the command that goes on
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake a user can mend. The message names the value, the place and the mending command."""

    exit_code = 2


class Incomplete(UserError):
    """The work finished but a part is missing."""

    exit_code = 1


class GateFailed(UserError):
    """A score is worse than its baseline by more than the rule allows."""

    exit_code = 3


class MissingData(UserError):
    """Data or weights are missing, damaged or not what they claim to be."""

    exit_code = 4


class BadEnvironment(UserError):
    """The machine cannot do what was asked: a folder is not writable, the disk too small, a lock is held."""

    exit_code = 5


class Interrupted(UserError):
    """The user stopped the work; the message says how to go on."""

    exit_code = 130


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that does not exist, offering the nearest one and listing the rest."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return UserError(f"no {kind} called '{name}': {hint}known: {', '.join(names) or 'none'}")
