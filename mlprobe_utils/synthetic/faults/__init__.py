"""Planted faults: a trained model damaged at one named place and strength, so that what finds losses can be tested.

A fault is a card in data/faults. It acts through hooks, no weight is ever changed; its strength is what an oracle loses
on fresh phantoms. `python -m mlprobe_utils model MODEL --datasets D ... --planted D ...` makes what pages show of them.
"""
