"""Phantoms: synthetic image sets with known truth, in the layouts of the public sets that they stand in for.

First form: shapes and textures drawn from generative parameters, deterministic and made in seconds.
`python -m mlprobe_utils.phantoms SLUG` makes the set of a data card.
"""
