"""Planted faults: a trained model damaged at one named place and strength, so that what finds losses can be tested. A
fault is a card in data/faults. It acts through hooks; its strength is what an oracle loses on fresh phantoms."""
