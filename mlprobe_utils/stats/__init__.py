"""Resampling, intervals, paired comparisons, corrections for noise: functions of arrays."""

__all__ = ["intervals", "paired", "resampling"]
