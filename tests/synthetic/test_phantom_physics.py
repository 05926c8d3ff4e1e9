"""Phantoms: each law of physics against what is known of it, or against a slow reference."""

import numpy as np
import pytest
from PIL import Image

from mlprobe_utils.synthetic.phantoms import ct, ultrasound, xray
from mlprobe_utils.synthetic.phantoms.modalities import MODALITIES, draw, picture, random_parameters
from mlprobe_utils.synthetic.phantoms.randomness import generator


def test_speckle_of_even_tissue_is_rayleigh():
    rng = np.random.default_rng(0)
    even = np.ones((ultrasound.SAMPLES, ultrasound.BEAMS))
    looks = np.concatenate(
        [ultrasound.echo(even, rng).reshape(-1, ultrasound.LOOKS, 2, ultrasound.BEAMS) for _ in range(40)]
    )
    envelope = np.hypot(looks[:, :, 0], looks[:, :, 1])[:, :, 8:-8]
    assert envelope.mean() / envelope.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.02)  # 1.91
    assert np.mean(envelope**2) == pytest.approx(2, rel=0.02)


def test_beam_widens_away_from_its_focus():
    rng = np.random.default_rng(0)
    even = np.ones((ultrasound.SAMPLES, ultrasound.BEAMS))
    many = np.stack([ultrasound.echo(even, rng) for _ in range(40)])
    neighbours = [
        np.corrcoef(part[..., :-2].ravel(), part[..., 2:].ravel())[0, 1] for part in np.split(many, 4, axis=1)
    ]
    assert np.argmin(neighbours) == 1  # the second quarter holds the focus
    assert neighbours[3] > neighbours[2] > neighbours[1]


def test_shadow_is_the_integral_of_attenuation():
    attenuation = np.full((ultrasound.SAMPLES, ultrasound.BEAMS), 0.6)
    attenuation[20:36, 20:40] = 1.4
    lost, slow = ultrasound.loss(attenuation), np.zeros_like(attenuation)
    step = ultrasound.DEPTH / ultrasound.SAMPLES  # cm
    for beam in range(ultrasound.BEAMS):
        for sample in range(ultrasound.SAMPLES):
            above = sum(attenuation[k, beam] for k in range(sample)) + attenuation[sample, beam] / 2
            slow[sample, beam] = above * step * ultrasound.FREQUENCY * 2  # there and back
    np.testing.assert_allclose(lost, slow)
    received = ultrasound.echo(np.ones_like(attenuation), np.random.default_rng(0))
    picture = ultrasound.b_mode(received, lost, 0.6, -30) * ultrasound.DYNAMIC_RANGE
    shadow = picture[40:, :18].mean() - picture[40:, 22:38].mean()  # dB
    assert shadow == pytest.approx(2 * ultrasound.FREQUENCY * 0.8 * 16 * step, abs=1.0)


@pytest.mark.parametrize(("attenuation", "brighter"), [(0.1, True), (1.3, False)])
def test_what_lies_behind_a_lesion_follows_from_its_attenuation(attenuation, brighter):
    made = random_parameters("ultrasound", "benign", generator("dataset", 0, 1))
    made |= {"x": 0.0, "y": -0.2, "size": 0.3, "log_aspect": 0.0, "pointer": False, "text": None, "contact": 0.0}
    behind, beside = [], []
    for seed in range(20):
        for value, means in ((attenuation, behind), (ultrasound.TISSUE, beside)):
            image = picture("ultrasound", made | {"attenuation": value}, np.random.default_rng(seed), 64)
            means.append(image[38:50, 27:37].mean())
    assert (np.mean(behind) > np.mean(beside) + 10) if brighter else (np.mean(behind) < np.mean(beside) - 10)


def test_hounsfield_units_before_the_window():
    units = []
    for i in range(12):
        made = random_parameters("ct", "NonCOVID", generator("dataset", 0, i))
        made |= {"shift_x": 0.0, "shift_y": 0.0, "rotation": 0.0, "scale": 1.0, "opacities": [], "heart": 1.0}
        units.append(ct.hounsfield(made, np.random.default_rng(i), 64))
    units = np.stack(units)
    assert np.median(units[:, :6, :6]) == pytest.approx(ct.AIR, abs=20)  # beside the body
    assert -900 < np.median(units[:, 20:28, 15:20]) < -700  # lung
    assert np.median(units[:, 24:28, 33:37]) == pytest.approx(ct.SOFT_TISSUE, abs=20)  # heart
    assert np.median(units[:, 46:48, 31:33]) > 300  # spine
    hazy = made | {"density": -500.0, "softness": 0.3}
    hazy["opacities"] = [{"lung": "right", "angle": 0.0, "reach": 0.0, "radius": 0.25}]
    middle = ct.hounsfield(hazy, np.random.default_rng(0), 64)[30:34, 16:20]
    assert -700 < np.median(middle) < -300  # between aerated lung and consolidation
    assert ct.windowed(np.array([-1300.0, -550.0, 200.0]), -550, 1500).tolist() == [0, 0.5, 1]


def test_noise_of_filtered_back_projection_is_band_passed():
    noise = np.stack([ct.reconstruction_noise(np.random.default_rng(i), ct.CELLS) for i in range(200)])
    assert noise.std() == pytest.approx(1, rel=0.02)
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(0)[0, : ct.CELLS // 2]
    assert power[0] < 0.05 * power.max()
    assert power[-1] < 0.05 * power.max()
    assert power[4] / power[2] == pytest.approx(2, rel=0.3)  # the ramp


def test_beer_lambert():
    """Half-value layers: each thickness of ln 2 over the coefficient halves what comes through."""
    side, none = 64, np.zeros((64, 64))
    for layers in (1, 2, 3):
        body = np.full((side, side), layers * np.log(2) / xray.SOFT_TISSUE)
        through = np.exp(-xray.line_integral(body, none, none, none))
        np.testing.assert_allclose(through, 0.5**layers)
    thick = [np.full((side, side), cm) for cm in (12.0, 8.0, 0.0, 3.0)]
    slow = 0.0
    for coefficient, cm in ((xray.SOFT_TISSUE, 4 + 3), (xray.LUNG, 5)):
        for _ in range(100 * cm):  # slice by slice of a tenth of a millimetre
            slow += coefficient * 0.01
    np.testing.assert_allclose(xray.line_integral(*thick), slow)
    film = xray.film(xray.line_integral(*thick), np.random.default_rng(0))
    assert film.mean() == pytest.approx(slow, abs=0.02)  # the scatter of an even field is even
    photons = xray.PHOTONS * np.exp(-slow) * (1 + xray.SCATTER)
    assert film.std() == pytest.approx(1 / np.sqrt(photons), rel=0.1)


def test_an_opacity_is_on_the_side_that_its_caption_says():
    clear = random_parameters("xray", "NORMAL", generator("dataset", 1, 4))
    base = clear | {"shift_x": 0.0, "shift_y": 0.0, "rotation": 0.0, "scale": 1.0}
    place = {"x": 0.42, "y": 0.0, "width": 0.25, "height": 0.25, "strength": 4.0}
    spot = [{"lung": "left", "zone": "middle", **place}]
    with_, without = (xray.integral(base | {"opacities": o}, np.random.default_rng(0), 64) for o in (spot, []))
    rise = with_ - without
    column = (rise.sum(0) * np.arange(64)).sum() / rise.sum()
    assert 40 < column < 50  # the patient's left is on the right of the image


@pytest.mark.parametrize("side", [32, 200])
@pytest.mark.parametrize("modality", MODALITIES)
def test_other_sides_show_the_same_picture(modality, side):
    for label in MODALITIES[modality].LABELS:
        small, made = draw(modality, label, generator("dataset", 5, 1), 64)
        other, again = draw(modality, label, generator("dataset", 5, 1), side)
        assert other.shape == (side, side)
        assert made == again
        coarse = [np.asarray(Image.fromarray(a).resize((8, 8), Image.Resampling.BOX)).ravel() for a in (small, other)]
        assert np.corrcoef(*coarse)[0, 1] > 0.9
