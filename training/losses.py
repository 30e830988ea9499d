"""Losses of copy detection: tell views of one place from all others, and use the whole sphere.

After Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection" (SSCD), CVPR 2022.
"""

import torch
from torch import Tensor


def info_nce(vectors: Tensor, temperature: float) -> Tensor:
    """Cross entropy of finding a view's partner among all other views of the batch.

    Args:
        vectors: Unit vectors, shape (2n, dim); rows 2i and 2i + 1 are views of one place.
        temperature: Divides the cosines.
    """
    count = len(vectors)
    logits = vectors @ vectors.T / temperature
    logits = logits.masked_fill(torch.eye(count, dtype=torch.bool, device=logits.device), -1e9)
    return torch.nn.functional.cross_entropy(logits, _partners(count, logits.device))


def koleo(vectors: Tensor) -> Tensor:
    """Kozachenko-Leonenko entropy estimate, negated: pushes each view off its nearest other place.

    Args:
        vectors: Unit vectors, shape (2n, dim); rows 2i and 2i + 1 are views of one place.
    """
    count = len(vectors)
    with torch.no_grad():
        cosines = vectors @ vectors.T
        cosines.fill_diagonal_(-2)
        cosines[torch.arange(count), _partners(count, vectors.device)] = -2
        nearest = cosines.argmax(1)
    distances = (vectors - vectors[nearest]).norm(dim=1)
    return -torch.log(distances + 1e-6).mean()


def _partners(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device) ^ 1
