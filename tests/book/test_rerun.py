"""The page "Rerun it" does what it says of one's own images: each command of its sections, from nothing to pages."""

import re
import subprocess
import sys

import numpy as np
import pytest
from made_releases import encoded, write
from PIL import Image
from small_book import MODEL, ROOT, SmallBook

from mlprobe_utils.pipeline.cards import DataCard, parse_card


def blocks(title: str) -> list[str]:
    """The code blocks of a section of the page."""
    section = (ROOT / "book" / "rerun.md").read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"```\w*\n(.*?)\n```", section, flags=re.DOTALL)


def test_the_card_on_the_page_is_one(tmp_path):
    (tmp_path / "scans.yml").write_text(blocks("Your images")[1])
    card = parse_card(DataCard, tmp_path / "scans.yml")
    assert (card.layout, card.options, card.modality) == ("folder", ["Healthy", "Ill"], "not stated")
    written = set(card.model_dump(exclude_defaults=True)) - {"slug"}
    assert written == {"name", "root", "classes", "template", "licence"}


@pytest.mark.slow
def test_a_folder_becomes_a_book_and_its_results_stand_beside_anothers(tmp_path):
    rng, rows = np.random.default_rng(0), [blocks("Your images")[3].splitlines()[0]]
    for label, bright in (("healthy", 60), ("ill", 180)):
        for number in range(60):
            picture = rng.integers(0, bright, (40, 40)).astype(np.uint8)
            write(tmp_path / f"scans/{label}/{number:03d}.png", encoded(Image.fromarray(picture)))
            rows.append(f"{label}/{number:03d}.png,{label}{number // 2}")
        write(tmp_path / f"scans/{label}/000_mask.png", b"")
    write(tmp_path / "scans/metadata.csv", "\n".join(rows))
    book, theirs = SmallBook(tmp_path / "place"), tmp_path / "theirs.results.zip"

    def run(command: str) -> str:
        real = {".venv/bin/python": sys.executable, "scans/": f"{tmp_path}/scans/", "<slug>": MODEL}
        real |= {theirs.name: str(theirs)}
        for shown, own in real.items():
            command = command.replace(shown, own)
        done = subprocess.run(command, shell=True, cwd=ROOT, env=book.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    propose, _, make, _ = blocks("Your images")
    assert "# images: healthy 60, ill 60\n" in (card := run(propose))
    assert "# patients: 60\n# files left out: 2\n" in card
    run(make)
    page = (book.html / "01_datasets.html").read_text()
    assert "*_mask*: 2" in page
    assert "The images of scans are real." in page
    export, beside = blocks("Results of others beside yours")
    run(f"{export} --file {theirs.name}")
    run(beside)
    page = (book.html / "03_probing.html").read_text()
    assert "(theirs)" in page
    assert (book.html / "models" / "theirs.html").is_file()
