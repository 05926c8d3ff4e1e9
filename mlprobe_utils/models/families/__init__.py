"""Families: the one place that knows an architecture. One small file a family, found by the model's class."""

import mlprobe_utils.models.compat
