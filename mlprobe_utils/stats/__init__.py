"""Resampling, intervals and paired comparisons: functions of arrays."""

__all__ = ["intervals", "paired", "resampling"]
