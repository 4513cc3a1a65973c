"""The errors a user can cause. Each says what was found, which rule it breaks and what to do next.

The command line prints the message without a traceback and leaves with the error's exit code.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class DiglotError(Exception):
    """Something outside the program went wrong: an unreadable file, a full disk, a broken input. Exit code 1."""

    exit_code = 1


class ConfigError(DiglotError, ValueError):
    """The user asked for something impossible or misspelled. Exit code 2."""

    exit_code = 2


class InputError(DiglotError, ValueError):
    """An input is missing, empty, damaged or of the wrong kind. Exit code 1."""


def unknown(what: str, name: str, known: Iterable[str], where: str = "") -> ConfigError:
    """`unknown setting 'treshold' in step 'kept'; did you mean 'threshold'? Known: ...`"""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else "."
    place = f" in {where}" if where else ""
    return ConfigError(f"unknown {what} '{name}'{place}{hint} Known: {', '.join(names)}.")


def explain_os_error(error: OSError, path: object, doing: str) -> DiglotError:
    """Turn an operating system error into a sentence with a next action."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiglotError(
            f"no space left while {doing} {path}. Finished shards and checkpoints are kept: "
            "free some space (`diglot run` shows the store's folder) and run the same command again."
        )
    if error.errno == errno.EACCES:
        return DiglotError(f"no permission while {doing} {path}. Choose another --store or change the permissions.")
    return DiglotError(f"{error.strerror or error} while {doing} {path}.")
