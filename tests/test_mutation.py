"""The faults of mutants.yml can be planted: each is in one place of the package, and leaves a module that parses."""

import ast

import pytest
import yaml
from mutation import MUTANTS, mutants, planted

EVERY = mutants()


def test_there_are_sixty_four_of_different_ids_and_reasons():
    entries = yaml.safe_load(MUTANTS.read_text(encoding="utf-8"))
    assert len(entries) == len(EVERY) == len({entry["reason"] for entry in entries}) == 64
    assert all(set(entry) == {"id", "function", "old", "new", "reason"} for entry in entries)


@pytest.mark.parametrize("own", EVERY)
def test_a_mutant_changes_one_place_of_the_package(own):
    path, source = planted(EVERY[own])
    assert len(ast.parse(source).body) == len(ast.parse(path.read_text(encoding="utf-8")).body)


@pytest.mark.parametrize("change", [{"function": "nowhere"}, {"old": "no such code"}])
def test_a_mutant_that_is_not_in_one_place_is_an_error_that_names_it(change):
    with pytest.raises(ValueError, match="false-discoveries-for-holm"):
        planted(EVERY["false-discoveries-for-holm"] | change)
