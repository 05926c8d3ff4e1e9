"""Floating-point operations of matrix products and attention, by torch's counter."""

from collections.abc import Callable

from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from mlprobe_utils.models.loading import LoadedModel


def forward_operations(query, key, value, *_, out_shape=None, **__) -> int:
    """Of attention in which several query heads share a key head, which torch's own formulas refuse; shapes."""
    return sdpa_flop_count(query, *(shape[:1] + query[1:2] + shape[2:] for shape in (key, value)))


def backward_operations(gradient, query, key, value, *_, out_shape=None, **__) -> int:
    return sdpa_backward_flop_count(gradient, query, *(s[:1] + query[1:2] + s[2:] for s in (key, value)))


GROUPED = {
    operator: backward_operations if "backward" in str(operator) else forward_operations
    for operator in flop_registry
    if "scaled_dot_product" in str(operator)
}


def counted(work: Callable[[], object]) -> FlopCounterMode:
    """What `work()` does, recomputed operations included."""
    with FlopCounterMode(display=False, custom_mapping=GROUPED) as counter:
        work()
    return counter


def operations(work: Callable[[], object]) -> int:
    return counted(work).get_total_flops()


def shares(loaded: LoadedModel, forward: Callable[[], object]) -> dict[str, float]:
    """Which part of the operations of a forward pass each block of vision tower and LLM does, by point."""
    counter, whole = counted(forward), type(loaded.model).__name__
    of_modules = counter.get_flop_counts()
    points = [point for point in loaded.family.probe_points() if point.name[0] in "VL"]
    own = {point.name: sum(of_modules[f"{whole}.{point.path}"].values()) for point in points}
    return {name: count / counter.get_total_flops() for name, count in own.items()}
