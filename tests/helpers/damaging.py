"""Damages files of a run in every way, and sees whether it is noticed: `python damaging.py COUNT SEED MODEL… DATASET`.

The run's folders are those of the environment (MLPROBE_OUTPUTS, …); every file is put back as it was.
"""

import json
import os
import random
import re
import sys
from pathlib import Path

from mlprobe_utils.book import book_pages, make_book
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import damage, read_record
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.configuration import configure
from mlprobe_utils.pipeline.jobs import due

BATCH = 10  # damaged at a time
# what each run writes anew, and what is read again where it is not right
HARMLESS = re.compile(r"^(book|logs|\.\w+)/|^(run\.json|step_times\.csv|\.\w+(\.json)?)$|\.lock$")
NOT_OF_A_JOB = re.compile(r"^(conversations|book_build)/|/scores-")  # made again by whatever needs it


def files_of(outputs: Path) -> list[Path]:
    found = [path for path in outputs.rglob("*") if path.is_file()]
    return sorted(path for path in found if not HARMLESS.search(str(path.relative_to(outputs))))


def damaged(content: bytes, chance: random.Random) -> bytes | None:
    """Other bytes than these, or none: the file is gone."""
    if not content:
        return chance.choice([b"\0", None])
    place, flipped = chance.randrange(len(content)), bytearray(content)
    flipped[place] ^= chance.randrange(1, 256)
    return chance.choice([content[:place], bytes(flipped), content + b"\0", None])


def damage_file(path: Path, chance: random.Random) -> None:
    content = damaged(path.read_bytes(), chance)
    path.unlink() if content is None else path.write_bytes(content)


def noticed(path: Path, outputs: Path) -> str:
    """What the records say is wrong with what a file belongs to, in words."""
    top, *_ = path.relative_to(outputs).parts if path.is_relative_to(outputs) else ("html",)
    if top in ("html", "book_build", make_book.RECORD):
        if (record := read_record(outputs / make_book.RECORD)) is None:
            return "no record"
        return make_book.html_damage(record) if top == "html" else damage(outputs / top, record["files"])
    if top == "chapters":
        name = path.relative_to(outputs / top).with_name(path.stem.removeprefix("."))
        return book_pages.damage_of(str(name))
    records = (folder / name for folder in path.parents for name in ("files.json", "made_from.json"))
    return artefacts.damage_of(next(record for record in records if record.is_file()).parent)


def main(count: int, seed: int, *selected: str) -> None:
    run = configure(selected[:-1], selected[-1:], "miniature", "paper", os.environ.get("DATA", ""))
    chance, outputs = random.Random(seed), artefacts.OUTPUTS
    files, found = [*files_of(outputs), *files_of(make_book.HTML)], {"damaged": 0, "silent": [], "errors": []}
    while found["damaged"] < count:
        chosen = chance.sample(files, BATCH)
        before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in chosen}
        for path in chosen:
            damage_file(path, chance)
        try:
            todo = due(make_book.graph(run))
        except InputError as error:  # one message, which names it
            todo = str(error)
        except Exception as error:
            found["errors"].append(f"{error!r} after damage to {chosen}")
        of_jobs = [path for path in chosen if not NOT_OF_A_JOB.search(str(path))]
        found["silent"] += [str(path) for path in chosen if not noticed(path, outputs) or (of_jobs and not todo)]
        found["damaged"] += BATCH
        for path, (content, time) in before.items():
            path.write_bytes(content)
            os.utime(path, ns=(time, time))
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
