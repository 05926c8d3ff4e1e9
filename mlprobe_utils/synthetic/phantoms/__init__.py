"""Phantoms: synthetic image sets with physics and known truth, in the layouts of the public sets they stand in for.

`ultrasound`, `ct` and `xray` lay out anatomy from generative parameters and make images of it by their physics;
`modalities` is the frame of all three. `texts` says in words what the parameters say in numbers; `general` draws
everyday shapes. `python -m mlprobe_utils phantoms SLUG` makes a card's set.
"""
