"""Phantoms: each law of physics against what is known of it, or against a slow reference."""

import numpy as np
import pytest
from PIL import Image

from mlprobe_utils.synthetic.phantoms import ct, ultrasound, xray
from mlprobe_utils.synthetic.phantoms.canvas import generator
from mlprobe_utils.synthetic.phantoms.modalities import MODALITIES, draw, picture, random_parameters

EVEN = np.ones((ultrasound.SAMPLES, ultrasound.BEAMS))
CENTRED = {"shift_x": 0.0, "shift_y": 0.0, "rotation": 0.0, "scale": 1.0}


def test_speckle_of_even_tissue_is_rayleigh_and_the_beam_widens_away_from_its_focus():
    rng = np.random.default_rng(0)
    echoes = np.stack([ultrasound.echo(EVEN, rng) for _ in range(40)])
    looks = echoes.reshape(-1, ultrasound.LOOKS, 2, ultrasound.BEAMS)
    envelope = np.hypot(looks[:, :, 0], looks[:, :, 1])[:, :, 8:-8]
    assert envelope.mean() / envelope.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.02)  # 1.91
    assert np.mean(envelope**2) == pytest.approx(2, rel=0.02)
    quarters = [
        np.corrcoef(part[..., :-2].ravel(), part[..., 2:].ravel())[0, 1] for part in np.split(echoes, 4, axis=1)
    ]
    assert np.argmin(quarters) == 1  # the second quarter holds the focus
    assert quarters[3] > quarters[2] > quarters[1]


def test_shadow_is_the_integral_of_attenuation():
    attenuation = 0.6 * EVEN
    attenuation[20:36, 20:40] = 1.4
    lost, slow = ultrasound.loss(attenuation), np.zeros_like(attenuation)
    step = ultrasound.DEPTH / ultrasound.SAMPLES  # cm
    for beam in range(ultrasound.BEAMS):
        for sample in range(ultrasound.SAMPLES):
            above = sum(attenuation[k, beam] for k in range(sample)) + attenuation[sample, beam] / 2
            slow[sample, beam] = above * step * ultrasound.FREQUENCY * 2  # there and back
    np.testing.assert_allclose(lost, slow)
    received = ultrasound.echo(EVEN, np.random.default_rng(0))
    shown = ultrasound.b_mode(received, lost, 0.6, -30) * ultrasound.DYNAMIC_RANGE
    shadow = shown[40:, :18].mean() - shown[40:, 22:38].mean()  # dB
    assert shadow == pytest.approx(2 * ultrasound.FREQUENCY * 0.8 * 16 * step, abs=1.0)


def test_what_lies_behind_a_lesion_follows_from_its_attenuation():
    made = random_parameters("ultrasound", "benign", generator("dataset", 0, 1))
    made |= {"x": 0.0, "y": -0.2, "size": 0.3, "log_aspect": 0.0, "pointer": False, "text": None, "contact": 0.0}

    def behind(attenuation: float) -> float:
        own = made | {"attenuation": attenuation}
        images = [picture("ultrasound", own, np.random.default_rng(seed), 64) for seed in range(20)]
        return np.stack(images)[:, 38:50, 27:37].mean()

    assert behind(0.1) - 10 > behind(ultrasound.TISSUE) > behind(1.3) + 10


def test_hounsfield_units_before_the_window():
    units = []
    for i in range(12):
        made = random_parameters("ct", "NonCOVID", generator("dataset", 0, i)) | CENTRED
        units.append(ct.hounsfield(made | {"opacities": [], "heart": 1.0}, np.random.default_rng(i), 64))
    units = np.stack(units)
    assert np.median(units[:, :6, :6]) == pytest.approx(ct.AIR, abs=20)  # beside the body
    assert -900 < np.median(units[:, 20:28, 15:20]) < -700  # lung
    assert np.median(units[:, 24:28, 33:37]) == pytest.approx(ct.SOFT_TISSUE, abs=20)  # heart
    assert np.median(units[:, 46:48, 31:33]) > 300  # spine
    hazy = made | {"density": -500.0, "softness": 0.3, "heart": 1.0}
    hazy["opacities"] = [{"lung": "right", "angle": 0.0, "reach": 0.0, "radius": 0.25}]
    middle = ct.hounsfield(hazy, np.random.default_rng(0), 64)[30:34, 16:20]
    assert -700 < np.median(middle) < -300  # between aerated lung and consolidation


def test_noise_of_filtered_back_projection_is_band_passed():
    noise = np.stack([ct.reconstruction_noise(np.random.default_rng(i), ct.CELLS) for i in range(200)])
    assert noise.std() == pytest.approx(1, rel=0.02)
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(0)[0, : ct.CELLS // 2]
    assert max(power[0], power[-1]) < 0.05 * power.max()
    assert power[4] / power[2] == pytest.approx(2, rel=0.3)  # the ramp


def test_beer_lambert():
    """Half-value layers: each thickness of ln 2 over the coefficient halves what comes through."""
    none = np.zeros((64, 64))
    for layers in (1, 2, 3):
        body = none + layers * np.log(2) / xray.SOFT_TISSUE
        np.testing.assert_allclose(np.exp(-xray.line_integral(body, none, none, none)), 0.5**layers)
    thick = xray.line_integral(*(none + cm for cm in (12.0, 8.0, 0.0, 3.0)))
    summed = xray.SOFT_TISSUE * (4 + 3) + xray.LUNG * 5
    np.testing.assert_allclose(thick, summed)
    film = xray.film(thick, np.random.default_rng(0))
    assert film.mean() == pytest.approx(summed, abs=0.02)  # the scatter of an even field is even
    photons = xray.PHOTONS * np.exp(-summed) * (1 + xray.SCATTER)
    assert film.std() == pytest.approx(1 / np.sqrt(photons), rel=0.1)


def test_an_opacity_is_on_the_side_that_its_caption_says():
    base = random_parameters("xray", "NORMAL", generator("dataset", 1, 4)) | CENTRED
    place = {"x": 0.42, "y": 0.0, "width": 0.25, "height": 0.25, "strength": 4.0}
    spot = [{"lung": "left", "zone": "middle", **place}]
    with_, without = (xray.integral(base | {"opacities": o}, np.random.default_rng(0), 64) for o in (spot, []))
    rise = with_ - without
    column = (rise.sum(0) * np.arange(64)).sum() / rise.sum()
    assert 40 < column < 50  # the patient's left is on the right of the image


@pytest.mark.parametrize("modality", MODALITIES)
def test_other_sides_show_the_same_picture(modality):
    for label in MODALITIES[modality].LABELS:
        drawn = [draw(modality, label, generator("dataset", 5, 1), side) for side in (64, 32, 200)]
        assert [image.shape for image, _ in drawn] == [(64, 64), (32, 32), (200, 200)]
        assert drawn[0][1] == drawn[1][1] == drawn[2][1]
        coarse = [np.asarray(Image.fromarray(a).resize((8, 8), Image.Resampling.BOX)).ravel() for a, _ in drawn]
        assert np.corrcoef(coarse)[0, 1:].min() > 0.9
