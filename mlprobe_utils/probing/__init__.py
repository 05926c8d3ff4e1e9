"""Hooks, features at every probe point, probes, the logit lens."""

__all__ = ["extraction", "logit_lens", "probes", "settings"]
