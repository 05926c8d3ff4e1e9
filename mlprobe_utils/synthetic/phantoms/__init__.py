"""Phantoms: synthetic image sets with physics and known truth, in the layouts of the public sets they stand in for.

Anatomy (`ultrasound`, `ct`, `xray`) is laid out as maps of tissue from generative parameters; physics (`acoustics`,
`tomography`, `radiography`) makes images of the maps; `marks` burns in what examinations carry besides. `captions`,
`questions` and `sentences` say in words what the parameters say in numbers; `general` draws everyday shapes.
`python -m mlprobe_utils phantoms SLUG` makes the set of a data card.
"""
