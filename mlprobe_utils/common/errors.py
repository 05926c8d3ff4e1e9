"""Errors that a user can mend."""

import difflib
from collections.abc import Iterable


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
    return InputError(f"unknown {kind} '{value}':{hint} Known: {', '.join(known) or 'none'}. {mend}".rstrip())
