"""Makes torchvision importable beside a torch build whose compiled torchvision operators are missing.

The package registry has no CPU build of torchvision. The CUDA build fails to import beside a CPU torch because it
registers fake kernels for two operators that its own compiled library would have declared. Declaring their schemas
beforehand is enough for everything the book uses (transforms, processors). On a machine where the compiled operators
load, nothing is declared and nothing changes.
"""

import importlib.abc
import importlib.util
import sys

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries = []  # a torch Library withdraws its schemas when it is collected


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Declares the schemas the moment torchvision is first looked up; finds nothing itself."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision" and not _libraries:
            sys.meta_path.remove(self)
            _declare()
        return None


def _declare() -> None:
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        return
    for location in spec.submodule_search_locations:
        try:
            torch.ops.load_library(f"{location}/_C.so")
            return
        except OSError:
            continue
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _libraries.append(library)


def install() -> None:
    """Registers the finder once, ahead of the others; costs nothing until torchvision is imported."""
    if "torchvision" not in sys.modules and not any(isinstance(f, _BeforeTorchvision) for f in sys.meta_path):
        sys.meta_path.insert(0, _BeforeTorchvision())
