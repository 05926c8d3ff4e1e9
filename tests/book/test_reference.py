"""The page of the door's functions: as their docstrings are, and all of them."""

import re

from reference import PAGE, written

import mlprobe_utils as mp


def test_the_reference_is_written_from_the_docstrings_and_has_every_function():
    assert PAGE.read_text() == written(), "run `python tests/helpers/reference.py`"
    functions = set(re.findall(r"^## mp\.(\w+)$", written(), re.MULTILINE))
    assert functions == {*mp.__all__}
    signatures = set(re.findall(r"^```python\nmp\.([\w.]+)\(", written(), re.MULTILINE))
    assert functions - {"edits"} <= signatures  # edits is a module, whose parts have theirs
    assert {"edits.Patch", "edits.Steer", "edits.Skip", "edits.KnockOut", "edits.states"} <= signatures
