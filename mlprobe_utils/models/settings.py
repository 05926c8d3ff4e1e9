"""Settings of a checkpoint."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.settings import Count, Part, Precision, Words
from mlprobe_utils.evaluation.answers import THOUGHTS, Thought

RANDOM_SEED = 1729  # of random weights; a miniature that begins with its own seed is then another model


class Checkpoint(Part):
    """A checkpoint, on the hub or in a folder, and how it is read."""

    slug: str = Field(description="its name in error messages")
    source: str = Field(description="hub id, or a folder (relative to the project's root)")
    revision: str | None = Field(None, description="of the hub's repository: branch, tag or commit")
    family: str | None = Field(None, description="only an assertion: the model's class decides")
    gated: bool = Field(False, description="the hub requires that its terms are accepted first")
    precision: Precision | None = Field(None, description="of the weights; without it, the protocol's")
    max_pixels: Count | None = Field(None, description="maximum image size for the model; larger images are reduced")
    attention: Literal["eager", "sdpa", "flash_attention_2"] | None = Field(None, description="transformers' name")
    device_map: Literal["auto", "balanced", "sequential"] | None = Field(None, description="spreads it over devices")
    chat_template: Words | None = Field(None, description="replaces the checkpoint's own (Jinja)")
    system_prompt: str | None = Field(None, description="before the question; empty: not even the chat template's own")
    thought: Thought | None = Field(None, description="opening and closing marks of a thought, if unusual")
    max_new_tokens: Count | None = Field(None, description="of an answer; a model that thinks needs 512 to 2,000")
    pad_to_square: bool = Field(False, description="pads images to a square with their mean colour (LLaVA)")

    @property
    def thoughts(self) -> tuple[Thought, ...]:  # that its answers are parsed with
        return THOUGHTS + ((self.thought,) if self.thought else ())

    @property
    def called(self) -> str:  # by errors
        return f"model '{self.slug}'"

    @property
    def root(self) -> Path:  # where a relative `source` starts
        return Path()

    def located(self) -> str:
        """The absolute folder of a local model, or the hub id; InputError for a folder that does not exist."""
        folder = (self.root / Path(self.source).expanduser()).resolve()
        if folder.is_dir():
            return str(folder)
        if self.source.startswith((".", "/", "~")) or self.source.count("/") != 1:
            raise InputError(f"{self.called}: source {self.source!r} is neither a folder nor a hub id (owner/name)")
        return self.source


UNNAMED = Checkpoint(slug="unnamed", source=".")  # of a model that was not loaded from a card
