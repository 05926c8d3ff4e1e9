"""Planted faults: a trained model damaged at one named place and strength, so that what finds losses can be tested.

A fault is a card in data/faults. It acts through hooks while a `with` block lasts; no weight is ever changed. Its
strength is what an oracle loses on fresh phantoms, never what our own probes or scores say.
`python -m mlprobe_utils model MODEL --datasets D ... --planted D ...` makes everything that pages read of them.
"""
