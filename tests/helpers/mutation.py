"""Plants the faults of mutants.yml one by one and says which test notices each.

python tests/helpers/mutation.py [ID ...] [--slow] [--jobs N] [--results FILE]

First run the fast test files that import the mutated module, then all other fast ones, then with --slow the slow tests.
A test that fails without the fault, too, notices nothing. Exit code 1 if fast tests notice fewer than 59 of the 64, or
not all whose ids are given. Results are kept: a run that was stopped goes on, until package or tests change.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PACKAGE, MUTANTS = ROOT / "mlprobe_utils", ROOT / "tests" / "mutants.yml"
FEWEST, PATIENCE = 59, 3600  # mutants to notice; seconds for one run of tests, which notices nothing if it takes longer
BUILDS_A_BOOK = re.compile(r"\b(first_book|book|site|visit)\b")  # fixtures


def mutants() -> dict[str, dict[str, str]]:
    return {entry["id"]: entry for entry in yaml.safe_load(MUTANTS.read_text(encoding="utf-8"))}


def planted(mutant: dict[str, str]) -> tuple[Path, str]:
    """The file that holds a mutant's fragment, and its source with the fault. Raises ValueError unless there is one."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines(keepends=True)
        for node in named(ast.parse(source if mutant["old"] in source else ""), mutant["function"].split(".")):
            first, end = node.lineno - 1, node.end_lineno
            before, own, after = map("".join, (lines[:first], lines[first:end], lines[end:]))
            if own.count(mutant["old"]) == 1:
                found.append((path, before + own.replace(mutant["old"], mutant["new"]) + after))
    if len(found) != 1:
        raise ValueError("mutant '{id}': {0} named '{function}' hold {old!r} once".format(len(found), **mutant))
    return found[0]


def named(of: ast.Module | ast.ClassDef, names: list[str]) -> Iterator[ast.stmt]:
    """The functions, classes and constants that are defined under a dotted name."""
    for node in of.body:
        own = [getattr(target, "id", None) for target in getattr(node, "targets", [node])]
        if names[0] in [*own, getattr(node, "name", None)]:
            yield from [node] if len(names) == 1 else named(node, names[1:])


def files_of_checkout() -> list[str]:
    command = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.check_output(command, text=True).split("\0")
    return [name for name in listed if (ROOT / name).is_file() or (ROOT / name).is_symlink()]  # links to folders, too


def importing_and_others(changed: Path) -> tuple[list[str], list[str]]:
    """The test files that import a module, and all others: first those that name it, last those that build a book."""
    module, found = ".".join(changed.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), ([], [])
    for path in (ROOT / "tests").rglob("test_*.py"):
        if path.stem == "test_mutation":  # every planted fault fails it: its fragment is no longer there
            continue
        source, names = path.read_text(encoding="utf-8"), set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                prefix = getattr(node, "module", "")
                names |= {prefix} | {f"{prefix}.{own.name}".removeprefix(".") for own in node.names}
        rank = bool(BUILDS_A_BOOK.search(source)), path.stem != f"test_{changed.stem}", changed.stem not in source
        found[module not in names].append((rank, str(path.relative_to(ROOT))))
    return tuple([name for _, name in sorted(own)] for own in found)


def first_failure(copy: Path, chosen: list[str], kind: str) -> str | None:
    """The first of some tests, fast or slow, that fails in a copy of the checkout; None if all pass."""
    run = {"cwd": copy, "env": os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}, "timeout": PATIENCE}
    run |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    imported = subprocess.run([sys.executable, "-c", "import mlprobe_utils as m; print(m.__file__)"], **run).stdout
    assert Path(imported.strip()).is_relative_to(copy), f"tests would import {imported} and not the copy in {copy}"
    marks = {"fast": "not slow and not nightly", "slow": "slow and not nightly"}[kind]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", marks, *chosen]
    try:
        done = subprocess.run([*command, f"--basetemp={copy.with_name('tmp')}"], **run)
    except subprocess.TimeoutExpired:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    assert failed or done.returncode in (0, 5), done.stdout  # 5: there are none of this kind
    return failed and failed[1]


def judged(mutant: dict[str, str], slow: bool) -> dict:
    """Which test notices a mutant, of which kind it is, and after how many seconds."""
    start, (changed, source), noticed = time.time(), planted(mutant), None
    own, others = importing_and_others(changed)
    with tempfile.TemporaryDirectory(prefix="mutant") as folder:
        copy = Path(folder).resolve() / "checkout"
        for name in files_of_checkout():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
        (copy / changed.relative_to(ROOT)).write_text(source, encoding="utf-8")
        for chosen, kind in [(own, "fast"), (others, "fast")] + [(own + others, "slow")] * slow:
            if chosen and (noticed := first_failure(copy, chosen, kind)):
                break
        seconds = round(time.time() - start)
        shutil.copy2(changed, copy / changed.relative_to(ROOT))
        assert not noticed or not first_failure(copy, [noticed], kind), f"{noticed} fails without a fault: mend it"
    return {"noticed": noticed, "kind": kind if noticed else "", "seconds": seconds, "slow": slow}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", metavar="ID", help="of mutants.yml, tried again if they were before")
    parser.add_argument("--slow", action="store_true", help="try slow tests where fast ones notice nothing")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time, each in a copy of its own")
    parser.add_argument("--results", type=Path, default=ROOT / "outputs" / "mutants.json")
    given, every = parser.parse_args(), mutants()
    if unknown := set(given.ids) - set(every):
        parser.error(f"no mutant {', '.join(sorted(unknown))} in {MUTANTS}")
    all(map(planted, every.values()))  # one that is nowhere is an error before anything runs
    files = [ROOT / name for name in files_of_checkout() if name.startswith(("mlprobe_utils/", "tests/"))]
    content = b"".join(path.name.encode() + path.read_bytes() for path in files if path.is_file())
    tree = hashlib.sha256(content).hexdigest()
    kept = json.loads(given.results.read_text()) if given.results.is_file() else {}
    results = kept["results"] if kept.get("tree") == tree else {}
    done = {own for own, found in results.items() if found["noticed"] or found["slow"] >= given.slow}

    def judge(own: str) -> None:
        results[own] = found = judged(every[own], given.slow)
        print("{0}: {noticed}, {seconds} s".format(own, **found), flush=True)
        given.results.parent.mkdir(parents=True, exist_ok=True)
        given.results.write_text(json.dumps({"tree": tree, "results": results}, indent=1))

    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(judge, given.ids or [own for own in every if own not in done]))
    print("| mutant | noticed by | tests | seconds |\n|---|---|---|---|")
    for own in given.ids or every:
        print("| {0} | {noticed} | {kind} | {seconds} |".format(own, **results[own]))
    kinds = [results[own]["kind"] for own in given.ids or every]
    print(f"{kinds.count('fast')} of {len(kinds)} noticed by fast tests, {kinds.count('slow')} more by slow ones")
    return int(kinds.count("fast") < (len(given.ids) or FEWEST))


if __name__ == "__main__":
    sys.exit(main())
