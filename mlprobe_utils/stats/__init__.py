"""Resampling, intervals, paired comparisons, corrections for noise: functions of arrays."""

__all__ = ["intervals", "mean_differences", "paired_tests", "resampling"]
