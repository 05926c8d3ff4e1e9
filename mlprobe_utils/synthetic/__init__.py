"""Worlds with known truth: phantoms, miniatures, planted faults."""
