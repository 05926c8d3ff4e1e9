"""The card of a diagnosis: how many points a loss must exceed to count, statement by statement. No torch."""

from typing import Annotated

from pydantic import Field, field_validator

from mlprobe_utils.cards import Card, Words, load_card
from mlprobe_utils.diagnosis import STATEMENTS

LABORATORY = "laboratory"  # the card that the book's diagnoses go by


class DiagnosisCard(Card):
    """The thresholds of all statements, and where they come from."""

    folder, kind = "diagnosis", "diagnosis"
    source: Words = Field(description="where the thresholds come from")
    thresholds: dict[str, Annotated[float, Field(ge=0, lt=100)]] = Field(
        description="statement -> the least loss that counts, percentage points"
    )

    @field_validator("thresholds")
    @classmethod
    def _one_for_each_statement(cls, thresholds: dict[str, float]) -> dict[str, float]:
        names = [statement.name for statement in STATEMENTS]
        if missing := [name for name in names if name not in thresholds]:
            raise ValueError(f"no threshold for {missing[0]!r}: give one for each of {names}")
        if foreign := [name for name in thresholds if name not in names]:
            raise ValueError(f"{foreign[0]!r} is no statement: choose from {names}")
        return thresholds


def load_diagnosis_card(slug: str = LABORATORY) -> DiagnosisCard:
    """A diagnosis card, by slug. Raises InputError as `cards.load_card` does."""
    return load_card(DiagnosisCard, slug)
