"""Errors that a user can fix, each with an exit code.

This module imports nothing heavy, so that `vfbench --help` and a mistyped flag respond at once.

    UserError                    2   the request itself is wrong: an unknown name, flag or option, too few samples
    +-- Incomplete               1   finished, but part of it is missing
    +-- GateFailed               3   a score is worse than the rule allows
    +-- MissingData              4   data or weights are missing, damaged or not what they claim to be
    +-- BadEnvironment           5   the machine cannot do it: folder not writable or in use, disk full
    +-- Interrupted            130   stopped by the user; the message has the command that resumes
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An error that a user can fix. The message names the value, its place, and the command or flag that fixes it."""

    exit_code = 2


class Incomplete(UserError):
    """The work finished, but part of the result is missing."""

    exit_code = 1


class GateFailed(UserError):
    """A score is worse than its baseline by more than the rule allows."""

    exit_code = 3


class MissingData(UserError):
    """Data or weights are missing, damaged or not what they claim to be."""

    exit_code = 4


class MissingCheckpoint(MissingData):
    """A model has no checkpoint, given or shipped. `model` is its name, `dataset` the loaded dataset."""

    def __init__(self, message: str, model: str, dataset: object) -> None:
        super().__init__(message)
        self.model, self.dataset = model, dataset


class BadEnvironment(UserError):
    """The machine cannot do it: a folder is not writable, the disk is too small, or a lock is held."""

    exit_code = 5


class Interrupted(UserError):
    """The user stopped the work; the message says how to resume."""

    exit_code = 130


def unknown(kind: str, name: object, known: Iterable[str]) -> UserError:
    """Error for an unknown name, with the nearest known one and a list of all."""
    names = sorted(each for each in known if each.isprintable())
    near = nearest(str(name), names)
    hint = f"did you mean '{near}'? " if near else ""
    return UserError(f"no {kind} called '{name}': {hint}known: {', '.join(names) or 'none'}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that a mistyped one is most like; empty where none is."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)), "")
