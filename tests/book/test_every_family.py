"""A miniature of each of the six families through all chapters: COVID19-CT, real images where REAL_DATA names them."""

import os
from pathlib import Path

import pytest
from small_book import MODEL, SmallBook

from mlprobe_utils.book.book_pages import chapters, model_page
from mlprobe_utils.pipeline.cards import load_model_card

RANDOM = "qwen3-vl-4b-miniature"
FEW = (RANDOM, "gemma-3-4b-miniature")  # with a side path, and with image tokens that see each other
MODELS = (*FEW, MODEL, "medvlm-r1-miniature", "huatuogpt-vision-34b-miniature", "hulu-med-4b-miniature")
POINTS = {  # vision tower, side path, connector, LLM
    "qwen2_vl": (6, 0, 2, 4),
    "qwen2_5_vl": (6, 0, 2, 4),
    "llava": (3, 0, 2, 5),  # the last of its four blocks is not read
    "hulu_med": (5, 0, 2, 4),
    "gemma3": (5, 0, 1, 4),
    "qwen3_vl": (6, 2, 2, 6),
}


def family_of(slug: str) -> str:
    """An adapted miniature is of its base's family."""
    return (card := load_model_card(slug)).family or family_of(card.base)


@pytest.mark.parametrize(
    "models", [pytest.param(FEW, marks=pytest.mark.slow), pytest.param(MODELS, marks=pytest.mark.nightly)]
)
def test_a_miniature_of_every_family_goes_through_all_chapters(tmp_path, models):
    real = os.environ.get("REAL_DATA")
    book = SmallBook(tmp_path, models, "covid19-ct", Path(real)) if real else SmallBook(tmp_path, models)
    code, said = book.make()
    assert code == 0, said
    families = {model: family_of(model) for model in models}
    assert models == FEW or set(families.values()) == POINTS.keys()
    for model, family in families.items():
        tables = book.tables(model)
        probes, answers = tables["probes/probes.parquet"], tables["predictions-finetuned-0/predictions.parquet"]
        counted = probes.drop_duplicates("point")["point"].str[0].value_counts()
        assert tuple(counted.get(module, 0) for module in "VDCL") == POINTS[family]
        assert len(answers[answers["split"] == "test"]) == (203 if real else 48)
        assert tables["scores-probes/table.parquet"]["accuracy"].notna().all()
        page = (book.html / f"{model_page(model)}.html").read_text()
        assert load_model_card(model).name in page
        assert ("with random weights, not trained at all" in page) == (model == RANDOM)
    for page in ("index", *chapters(), "models"):
        text = (book.html / f"{page}.html").read_text()
        assert "Traceback" not in text
        assert ("are real" if real else "synthetic phantoms") in text, page
        assert "with random weights, not trained at all" in text, page
