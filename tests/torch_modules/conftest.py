"""Tests of the extra `torch`: they run where they are asked for, since torch takes seconds to import."""

import numpy as np
import pytest


def pytest_ignore_collect(config):
    """Leave all files here alone but with `pytest -m torch`, which fails where torch is missing."""
    return None if config.option.markexpr == "torch" else True


@pytest.fixture(scope="session")
def images(pictures):
    """300 digits of 8 x 8 pixels, flat, in [0, 1]."""
    return (pictures[:300] / 16).astype(np.float32)


@pytest.fixture
def convolutional():
    """Return what makes a small convolutional module of 8 x 8 pixels, always with the same weights."""
    import torch
    from torch import nn

    def make(components=2, dropout=0.2, seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(
                nn.Unflatten(1, (1, 8, 8)),
                nn.Conv2d(1, 4, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Dropout(dropout),
                nn.Linear(64, 16),
                nn.ReLU(),
                nn.Linear(16, components),
            )

    return make
