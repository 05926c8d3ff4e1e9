"""What an import costs: pages never wait for torch; torchvision works beside a CPU torch."""

import subprocess
import sys

import pytest

from mlprobe_utils.artefacts import imported_files
from mlprobe_utils.book_pages import NOTEBOOKS, notebooks


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_the_notebooks_import_does_not_import_torch():
    files = sorted({path for name in notebooks() for path in imported_files(NOTEBOOKS / f"{name}.py")})
    names = [".".join(path.relative_to(NOTEBOOKS.parent).with_suffix("").parts) for path in files]
    assert "mlprobe_utils.charts" in names
    imports = "\n".join(f"import {name.removesuffix('.__init__')}" for name in names)
    assert (
        run(f"{imports}\nimport sys\nprint([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])") == "[]"
    )


@pytest.mark.parametrize("first", ["torchvision", "peft", "transformers.models.qwen2_vl.image_processing_qwen2_vl"])
def test_torchvision_imports_once_the_package_is(first):
    assert run(f"import mlprobe_utils, {first}, torchvision\nprint(torchvision.__version__.split('+')[0])") == "0.28.0"


def test_the_list_of_pages_needs_neither_torch_nor_what_executes_and_builds_them():
    code = "import sys, mlprobe_utils.book_pages\n"
    code += "print([m for m in ('torch', 'papermill', 'jupytext', 'IPython', 'sphinx', 'scipy') if m in sys.modules])"
    assert run(code) == "[]"


@pytest.mark.parametrize("module", ["pipeline", "miniatures.making", "baselines.card", "baseline_results"])
def test_no_process_imports_timm_that_builds_no_baseline(module):
    assert run(f"import mlprobe_utils.{module}, sys\nprint('timm' in sys.modules)") == "False"


@pytest.mark.parametrize("module", ["charts", "run_chapter"])
def test_no_process_makes_a_grammar_for_json_schemas(module):
    """jsonschema, which both import, reads rfc3987_syntax where it is installed, and that makes one with lark."""
    modules = "('jsonschema', 'lark')"
    assert (
        run(f"import mlprobe_utils.{module}, sys\nprint([m for m in {modules} if m in sys.modules])")
        == "['jsonschema']"
    )
