"""A whole run of `make book`, made small: a miniature or two, one data set, few epochs, in folders of its own."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
MODEL = "qwen2.5-vl-7b-miniature"
SECOND = "lingshu-7b-miniature"  # trained on from the first
DATASET = "covid19-ct-phantom"


@dataclass
class SmallBook:
    """A place for a run: its cards, outputs and HTML apart from the checkout's own."""

    place: Path
    models: tuple[str, ...] = (MODEL,)
    dataset: str = DATASET
    data: Path | None = None  # a folder of real images, which a test may damage
    said: str = ""  # what the first run printed
    more: dict[str, str] = field(default_factory=dict)  # of the environment

    def __post_init__(self):
        self.cards, self.outputs, self.html = (self.place / name for name in ("cards", "outputs", "html"))
        self.results = self.results_of(MODEL)
        if not self.cards.exists():
            self.place.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-r", str(ROOT / "data"), str(self.cards)], check=True)
            for path in self.cards.glob("models/*-miniature.yml"):
                short = re.sub(r"epochs: \d+", "epochs: 1", path.read_text())
                short = re.sub(r"\n +samples: \d+", "", short)  # so soon, no answer of a model's own is right
                path.write_text(re.sub(r"count: \d+", "count: 48", short))
            self.change("trials", "planted-faults", r"images: \d+", "images: 60")
            for path in self.cards.glob("discussions/*.yml"):  # one model is enough, in a book of one and of two
                self.change("discussions", path.stem, r"models: \[.*\]", "models: [qwen2.5-vl-7b]")
            both = "models: [qwen2.5-vl-7b, lingshu-7b]"  # every model's page has a section of its interventions
            self.change("discussions", "interventions", r"models: \[.*\]", both)
            self.change("protocols", "miniature", r"  epochs: 4\n", "  epochs: 2\n")
            self.change("protocols", "miniature", r"epochs: \d\d+", "epochs: 3")  # of probes and baselines
            self.change("protocols", "miniature", r"left_out: \[.*\]", "left_out: [fasternet, mlp-mixer, swin]")
            self.change("datasets", DATASET, r"COVID: (?!10\b)\d+", "COVID: 24")  # of each class; fewer validate

    def results_of(self, model: str) -> Path:
        return self.outputs / "miniature" / self.dataset / "paper" / model

    @property
    def environment(self) -> dict[str, str]:
        places = {"MLPROBE_CARDS": self.cards, "MLPROBE_OUTPUTS": self.outputs, "MLPROBE_HTML": self.html}
        return os.environ | {name: str(path) for name, path in places.items()} | self.more

    def change(self, kind: str, slug: str, pattern: str, replacement: str) -> None:
        """Edits a card; the pattern must be there."""
        path = self.cards / kind / f"{slug}.yml"
        changed, times = re.subn(pattern, replacement, path.read_text())
        assert times, pattern
        path.write_text(changed)

    def start(self, **arguments) -> subprocess.Popen:
        """Starts the command that `make book` runs."""
        given = {"datasets": self.dataset, "data": self.data} | arguments
        options = [[f"--{name.replace('_', '-')}", str(value)] for name, value in given.items() if value]
        options = [text for option in options for text in option if text != "True"]
        command = [sys.executable, "-m", "mlprobe_utils", "book", "--models", *self.models, *options]
        how = {"env": self.environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # as from a terminal: what a shell starts in the background ignores Ctrl-C, and so would all below it
        how |= {"start_new_session": True, "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
        return subprocess.Popen(command, **how)

    def make(self, **arguments) -> tuple[int, str]:
        """Runs it to its end; exit code and what it printed."""
        process = self.start(**arguments)
        out, err = process.communicate()
        return process.returncode, out + err

    def tables(self, model: str = MODEL) -> dict[str, pd.DataFrame]:
        """Every table of a model's results."""
        results = self.results_of(model)
        return {str(path.relative_to(results)): pd.read_parquet(path) for path in sorted(results.rglob("*.parquet"))}
