"""Guidance: each image's rows of a call become its prediction by the formula."""

from __future__ import annotations

import torch

from engine.diffusion.guidance import classifier_free


def test_it_is_the_formula_for_each_image():
    output = torch.randn(7, 4, 2, 2, generator=torch.Generator().manual_seed(0))  # the last row is padding
    scales, rows = torch.tensor([7.5, 2.0]), [(0, 1), (2,), (3, 4), (5,)]  # without a pair there is nothing to scale
    first, second, third, fourth = classifier_free(output, scales, rows)
    assert torch.allclose(first, output[0:1] + 7.5 * (output[1:2] - output[0:1]))
    assert torch.equal(second, output[2:3])
    assert torch.allclose(third, output[3:4] + 2.0 * (output[4:5] - output[3:4]))
    assert torch.equal(fourth, output[5:6])


def test_without_guidance_it_is_the_output():
    output = torch.randn(3, 4, 2, 2)
    assert torch.equal(torch.cat(classifier_free(output, torch.tensor([]), [[0], [1], [2]])), output)


def test_it_takes_a_row_that_several_images_share():
    output = torch.randn(2, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    unguided, mild, strong = classifier_free(output, torch.tensor([3.0, 9.0]), [(1,), (0, 1), (0, 1)])
    assert torch.equal(unguided, output[1:2])
    assert torch.allclose(mild, output[0:1] + 3 * (output[1:2] - output[0:1]))
    assert torch.allclose(strong, output[0:1] + 9 * (output[1:2] - output[0:1]))
