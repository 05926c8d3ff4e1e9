"""Miniatures: models of 0.3-0.6 million parameters, of the real class of their family, trained from scratch here."""
