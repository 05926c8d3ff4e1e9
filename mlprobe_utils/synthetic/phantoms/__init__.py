"""Phantoms: synthetic image sets with physics and known truth, in the layouts of the public sets they stand in for."""
