import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from training.losses import info_nce, koleo


def unit(rng: np.random.Generator, count: int) -> torch.Tensor:
    vectors = rng.normal(size=(count, 8))
    return torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_info_nce_is_the_cross_entropy_of_finding_the_partner() -> None:
    vectors = unit(np.random.default_rng(1), 8)
    array = vectors.numpy()
    losses = []
    for row in range(8):
        others = [place for place in range(8) if place != row]
        logits = array[row] @ array[others].T / 0.1
        partner = others.index(row ^ 1)
        losses.append(np.log(np.exp(logits).sum()) - logits[partner])
    assert info_nce(vectors, 0.1).item() == pytest.approx(float(np.mean(losses)))


def test_the_entropy_term_looks_at_the_nearest_other_place() -> None:
    a, b = torch.eye(8)[0], torch.eye(8)[1]
    near = torch.nn.functional.normalize(a + 0.1 * b, dim=0)
    spread = koleo(torch.stack([a, a, b, b]))
    close = koleo(torch.stack([a, a, near, near]))
    assert spread.item() == pytest.approx(-np.log(np.sqrt(2)), abs=1e-4)
    assert close > spread
