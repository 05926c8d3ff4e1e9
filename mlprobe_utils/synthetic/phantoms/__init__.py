"""Phantoms: synthetic image sets with physics and known truth, in the layouts of the public sets they stand in for.

`ultrasound` (with the physics of `acoustics`), `ct` and `xray` draw images from generative parameters; `marks` burns in
what examinations carry besides; `modalities` is the frame of all three. `texts` says in words what the parameters say
in numbers; `general` draws everyday shapes. `python -m mlprobe_utils phantoms SLUG` makes the set of a data card.
"""
