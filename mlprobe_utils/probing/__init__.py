"""Hooks, features at every probe point, probes, the logit lens, interventions."""

__all__ = ["edits", "extraction", "interventions", "logit_lens", "probes", "settings"]
