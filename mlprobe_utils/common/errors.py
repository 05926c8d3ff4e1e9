"""Errors that a user can mend."""

import difflib
import errno
import os
import re
from collections.abc import Iterable

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


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
    """What a disk that is full, or a path that may not be used, made of a command, in words; None: it was neither.

    `place` is named where the error names no file. Rust's libraries give the number in their text, numpy gives none.
    """
    number = getattr(error, "errno", None) or int(next(iter(re.findall(r"\(os error (\d+)\)", str(error))), 0))
    if isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", str(error)):
        number = errno.ENOSPC
    where = f"{os.fspath(getattr(error, 'filename', None) or place)}: {os.strerror(number)}"
    if number in NO_ROOM:
        return InputError(f"{where}: make room (disk, quota or limit on file sizes), and the same command goes on")
    if number in NO_ACCESS:
        return InputError(f"{where}: correct the path, or the rights there")
    return None
