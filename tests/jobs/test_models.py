"""`models`: the table of the networks, counted from the layers."""

import re

import pytest

from fcn.cost import count
from fcn.models import NETWORKS
from jobs.__main__ import main


def test_the_table_has_every_network(capsys: pytest.CaptureFixture[str]):
    """Each network has a row per padding with its figures, and a line with its sources."""
    assert main(["models"]) == 0

    shown = capsys.readouterr().out
    row = r"^(fcn\w+) +(paper|tight|-) +([\d,]+) +([\d.]+) +\d+ +(\d+)$"
    rows = re.findall(row, shown, re.MULTILINE)
    found = {(name, padding): figures for name, padding, *figures in rows}
    assert len(rows) == len(found) == 19
    assert {name for name, _ in found} == set(NETWORKS)
    assert found["fcn32s_vgg16", "paper"] == ["134,346,581", "180.9", "32"]
    assert found["fcn8s_vgg16", "tight"] == ["134,362,751", "107.8", "8"]
    assert found["fcn_all_skips_vgg16", "-"][::2] == ["18,644,373", "1"]
    for name in NETWORKS:
        assert re.search(rf"^  {name} +\S", shown, re.MULTILINE)


def test_multiply_adds_are_counted_by_hand_too():
    """At 32 x 32 the count is the sum over all layers of outputs times what each looks at."""
    channels = [3, 64, 128, 256, 512, 512]
    expected = 0
    for level in range(1, 6):
        before, after, side = channels[level - 1], channels[level], 32 >> (level - 1)
        expected += side * side * 9 * after * (before + after)
    # A transposed convolution of stride 2 spreads every input over 3 x 3 outputs.
    widths = [512, 512, 256, 128, 64, 32]
    for step in range(1, 6):
        expected += 4 ** (step - 1) * 9 * widths[step - 1] * widths[step]
    expected += 32 * 32 * 32 * 7

    assert count("fcn_all_skips", 7, (32, 32)).multiply_adds == expected


def test_groups_divide_the_work():
    """CaffeNet's two groups count once each: conv2 looks at half of the channels."""
    sides = {"conv1": 15, "conv2": 7, "rest": 3}
    expected = sides["conv1"] ** 2 * 121 * 3 * 96 + sides["conv2"] ** 2 * 25 * 48 * 256
    expected += sides["rest"] ** 2 * 9 * (256 * 384 + 192 * 384 + 192 * 256)
    # fc6 reads one pixel in a frame of three zeros on each side: kernel 6, two outputs a side.
    expected += 4 * (36 * 256 * 4096 + 4096 * 4096 + 4096 * 2)

    assert count("fcn32s_alexnet", 2, (57, 57), padding="tight").multiply_adds == expected
