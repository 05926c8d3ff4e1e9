"""Settings of a data set: what is released, how images are read and split, and the question about them."""

import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.settings import Count, Part, Rate
from mlprobe_utils.evaluation.question import REVERSED, Question, with_options_reversed

NOT_STATED = "not stated"
Column = Literal["file_name", "label", "split", "patient"]
# patients with images of several classes or given splits; files with the same bytes
Accepted = Literal["patients", "copies"]


def composed(label: str) -> str:
    """A label as it is compared: an umlaut is one letter, whatever a file system made of it."""
    return unicodedata.normalize("NFC", label)


class ClassOfImages(Part):
    """A diagnostic class: its folder's name, the answer that the template offers for it, and words that count as it."""

    name: Annotated[str, AfterValidator(composed)]
    option: str
    synonyms: list[str] = Field(default_factory=list)


class Release(Part):
    """A data set as it is released: what it should hold, and the question about its images."""

    slug: str
    name: str
    modality: str = NOT_STATED
    layout: Literal["folder", "busi", "covid-ct", "chest-xray"] = "folder"
    columns: dict[Column, str] = Field(default_factory=dict)  # what a table of the folder calls them
    leave_out: list[str] = Field(default_factory=list)  # patterns of files that are no images of the set: *_mask*
    accept: list[Accepted] = Field(default_factory=list)  # what is refused otherwise
    classes: list[ClassOfImages] = Field(min_length=2)
    positive: str | None = None  # the option counted as positive; none: scores are macro averages
    template: str
    paraphrases: list[str] = Field(default_factory=list)  # the same question in other words, to compare answers
    frame: int = Field(0, ge=0)  # which one is used of a file that holds several
    # official split ("all" where there is none) -> class -> images; what a folder should hold nobody says
    release_counts: dict[str, dict[str, Count]] = Field(default_factory=dict)
    test_counts: dict[str, Count] | None = None  # a data set without official split: the test set drawn from it
    test_fraction: float = Field(0.2, gt=0, lt=1)  # of the images of a folder, where it gives no test split

    @model_validator(mode="after")
    def _consistent(self):
        names = sorted(c.name for c in self.classes)
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two classes have the name {twice[0]!r}")
        for field, text in [("template", self.template), *((f"paraphrase {own!r}", own) for own in self.paraphrases)]:
            try:
                Question(text, {c.name: c.option for c in self.classes}, synonyms=self.synonyms)
            except InputError as error:
                raise ValueError(f"{field}: {error}") from error
            if unnamed := [own for own in self.options if own.casefold() not in text.casefold()]:
                raise ValueError(f"{field} does not name the option {unnamed[0]!r}: a model cannot know what to answer")
        for field, tables in (("release_counts", self.release_counts.values()), ("test_counts", [self.test_counts])):
            if extra := {name for table in tables for name in table or {}} - {*names}:
                raise ValueError(f"{field} names the class {min(extra)!r}, which is not in classes {names}")
        if self.layout != "folder" and not self.release_counts:
            raise ValueError(f"layout '{self.layout}' needs release_counts: what the release should hold")
        if self.layout == "folder" and self.test_counts:
            raise ValueError("test_counts are of the layouts of releases: a folder has test_fraction")
        if self.positive is not None and self.positive not in self.options:
            raise ValueError(f"positive is {self.positive!r}, which is not an option {self.options}")
        return self

    @property
    def options(self) -> list[str]:
        return [c.option for c in self.classes]

    @property
    def other_prompts(self) -> dict[str, str]:
        """Name -> the question with its options reversed, if the template names each as a word, and paraphrases."""
        found = {REVERSED: with_options_reversed(self.template, self.options)}
        found |= {f"paraphrase {i}": text for i, text in enumerate(self.paraphrases, 1)}
        return {name: text for name, text in found.items() if text}

    @property
    def synonyms(self) -> dict[str, list[str]]:
        """Option -> other words that count as it, of those that have any."""
        return {c.option: c.synonyms for c in self.classes if c.synonyms}


class Images(Part):
    """How an image becomes the working copy that models see."""

    decode_limit: Count = Field(description="pixels; larger images are refused before decoding")
    max_pixels: Count = Field(description="of the working copy; larger images are reduced, keeping the aspect ratio")
    square_side: Count | None = Field(None, description="resize to a square of this side instead (miniatures)")


class Splits(Part):
    seed: int
    validation_fraction: Rate
