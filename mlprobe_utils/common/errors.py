"""Errors that a user can mend, and how a command ends on one."""

import difflib
import sys
from collections.abc import Callable, Iterable


class InputError(Exception):
    """Bad input: the message names the file, field or value, and the mend."""


def unknown(kind: str, value: str, known: Iterable[str], mend: str = "") -> InputError:
    """An error for a name that is not among `known`, with the nearest known names.

    >>> print(unknown("data set", "buzi", ["busi", "chest-xray"]))
    unknown data set 'buzi': did you mean 'busi'? Known: busi, chest-xray.
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f" did you mean '{near[0]}'?" if near else ""
    listing = ", ".join(known) or "none"
    return InputError(f"unknown {kind} '{value}':{hint} Known: {listing}.{' ' + mend if mend else ''}")


def run_command(main: Callable[[], None]) -> None:
    """Runs a command's main; an InputError becomes one message on stderr and exit code 2, Ctrl-C exit code 130."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
