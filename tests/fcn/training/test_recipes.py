"""Recipes: the published numbers, and the rules that change them."""

import dataclasses

import pytest

from fcn.training.recipes import RECIPES, accumulated_momentum, class_weights, find_recipe, stages


def test_a_momentum_fades_as_fast_per_image_at_any_batch_size():
    """After 20 images a gradient weighs the same: one step at p, or 20 steps at p^(1/20)."""
    per_image = accumulated_momentum(0.9, 1 / 20)

    assert per_image == pytest.approx(0.99475, abs=1e-5)
    weight = 1.0
    for _ in range(20):
        weight *= per_image
    assert weight == pytest.approx(0.9)
    assert accumulated_momentum(per_image, 20) == pytest.approx(0.9)


def test_another_batch_size_changes_the_momentum():
    """The paper's recipe at batch 1 has the momentum of its `heavy` successor, nearly."""
    single = find_recipe("paper", "fcn32s_vgg16").with_batch_size(1)

    assert single.batch_size == 1
    assert single.momentum == pytest.approx(0.99475, abs=1e-5)
    # All in all an image moves the weights by as much: its share of the mean is now the whole.
    moved = 1e-4 / (1 - 0.9) / 20
    assert single.learning_rate / (1 - single.momentum) == pytest.approx(moved)


def test_the_recipes_have_the_published_numbers():
    """Rates, momenta and decays are those of the paper and of its authors' solvers."""
    paper, heavy = find_recipe("paper", "fcn8s_vgg16"), find_recipe("heavy", "fcn8s_vgg16")

    assert (paper.learning_rate, paper.momentum, paper.batch_size) == (1e-4, 0.9, 20)
    assert find_recipe("paper", "fcn32s_alexnet").learning_rate == 1e-3
    assert find_recipe("paper", "fcn32s_googlenet").learning_rate == 5e-5
    assert (heavy.learning_rate, heavy.momentum, heavy.batch_size) == (1e-10, 0.99, 1)
    assert (heavy.divisor, paper.divisor) == ("one", "pixels")
    for recipe in (paper, heavy):
        assert (recipe.weight_decay, recipe.bias_rate) == (5e-4, 2.0)


def test_staged_goes_from_coarse_to_fine_at_falling_rates():
    """FCN-8s is reached by FCN-32s and FCN-16s, each at a hundredth of the rate before it."""
    planned = stages(find_recipe("staged", "fcn8s_vgg16"), "fcn8s_vgg16")

    assert [name for name, _ in planned] == ["fcn32s_vgg16", "fcn16s_vgg16", "fcn8s_vgg16"]
    assert [one.learning_rate for _, one in planned] == pytest.approx([1e-10, 1e-12, 1e-14])
    assert [name for name, _ in stages(RECIPES["staged"], "fcn16s_vgg16")] == [
        *("fcn32s_vgg16", "fcn16s_vgg16"),
    ]
    assert stages(RECIPES["modern"], "fcn_all_skips") == [("fcn_all_skips", RECIPES["modern"])]


def test_stages_follow_a_rate_and_a_batch_of_ones_own():
    """With `staged`, too, another rate is that of the first stage and another batch changes it."""
    recipe = find_recipe("staged", "fcn8s_vgg16")
    batch = recipe.with_batch_size(20)

    own = dataclasses.replace(recipe, learning_rate=1e-9)
    assert [one.learning_rate for _, one in stages(own, "fcn8s_vgg16")] == pytest.approx(
        [1e-9, 1e-11, 1e-13]
    )
    for (_, one), factor in zip(stages(batch, "fcn8s_vgg16"), (1, 1e-2, 1e-4), strict=True):
        # What an image moves the weights by in all, as the loss is a sum.
        moved = one.learning_rate / (1 - one.momentum)
        assert moved == pytest.approx(factor * 1e-10 / (1 - 0.99))


def test_adamw_goes_with_the_root_of_the_batch():
    """Eight times the images per step are root eight times the rate."""
    modern = RECIPES["modern"]

    assert modern.with_batch_size(64).learning_rate == pytest.approx(3e-3 * 8**0.5)


@pytest.mark.parametrize(
    ("recipe", "network", "words"),
    [("quick", "fcn8s_vgg16", "unknown; there are: paper"), ("staged", "fcn_resnet50", "is for")],
)
def test_what_does_not_fit_is_refused(recipe: str, network: str, words: str):
    """Unknown recipes, and stages for a network without any, are errors with the choices."""
    with pytest.raises(ValueError, match=words):
        find_recipe(recipe, network)


def test_the_schedule_warms_up_and_ends_at_zero():
    """`poly` grows over the warm-up, falls with progress, and is zero at the end."""
    recipe = dataclasses.replace(RECIPES["modern"], learning_rate=1.0, warmup_steps=10)

    assert recipe.rate(0, 0) == pytest.approx(0.1)
    assert recipe.rate(9, 0) == pytest.approx(1)
    assert recipe.rate(100, 0.5) == pytest.approx(0.5**0.9)
    assert recipe.rate(100, 1) == 0
    assert RECIPES["heavy"].rate(7, 0.9) == 1e-10


def test_class_weights_follow_the_counted_pixels():
    """A class of a quarter of the pixels weighs twice one of all; the mean over pixels is 1."""
    pixels = [1600, 100, 0]

    weights = class_weights(RECIPES["modern"], pixels)

    assert weights is not None
    assert weights[1] / weights[0] == pytest.approx(4)
    assert (1600 * weights[0] + 100 * weights[1]) / 1700 == pytest.approx(1)
    assert weights[2] == RECIPES["modern"].max_class_weight
    assert class_weights(RECIPES["paper"], pixels) is None
    assert class_weights(RECIPES["modern"], [0, 0]) is None


def test_colours_vary_further_over_an_encoder_that_knows_images() -> None:
    """The recipe of Lite0 differs from that of the others in it alone."""
    plain, further = (find_recipe("modern", name) for name in ("fcn_pyramid", "fcn_lite0"))
    assert (plain.augmentation.colour, further.augmentation.colour) == (0.2, 0.5)
    varied = dataclasses.replace(further.augmentation, colour=0.2)
    assert dataclasses.replace(further, augmentation=varied) == plain
