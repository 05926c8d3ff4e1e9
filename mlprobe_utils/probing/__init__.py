"""Hooks, features at every probe point, probes, the logit lens."""
