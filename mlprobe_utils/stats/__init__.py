"""Resampling, intervals, paired comparisons, corrections for noise: functions of arrays."""
