"""Errors that a user can mend."""

import difflib
import errno
import os
import re
from collections.abc import Iterable

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}
# as Python and safetensors give it; numpy and torch give none where a file could not be written
NUMBER = re.compile(
    r"^\[Errno (\d+)\]|\(os error (\d+)\)|^\d+ requested and \d+ written|unexpected pos \d+ vs \d+|StreamWriter failed"
)


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


def of_file_system(error: Exception, place: str | os.PathLike) -> InputError | None:
    """What a user can mend of an error: a full disk, or a path that may not be used; None: it is of another kind.
    `place` is named where the error names no file."""
    found = NUMBER.search(str(error))
    number = int(found[1] or found[2] or errno.ENOSPC) if found else 0
    named = re.search(r": (['\"])(.+)\1$", str(error))
    where = f"{named[2] if named else os.fspath(place)}: {os.strerror(number)}"
    if number in NO_ROOM:
        return InputError(f"{where}: free some space (disk, quota or file size limit), and the same command continues")
    return InputError(f"{where}: check the path and its permissions") if number in NO_ACCESS else None
