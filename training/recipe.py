"""Every number that decides the weights, beside the pictures and their views."""

from dataclasses import dataclass

from training.model import FROZEN


@dataclass(frozen=True)
class Recipe:
    """How the encoder is trained."""

    pairs: int = 96
    """Places in a batch; each is there twice. Every other place is a negative for it."""

    learning_rate: float = 7e-4
    weight_decay: float = 0.05
    warm_up_steps: int = 50
    temperature: float = 0.06

    entropy_weight: float = 0.5
    """Of the entropy term. SSCD takes 30 where negatives are other photographs; here half of them
    come from the same picture and keep the views apart by themselves."""

    average: float = 0.99
    """Of the weights' moving average, which is what is kept."""

    largest_gradient: float = 5.0
    """Norm to which larger ones are scaled down."""

    frozen: int = FROZEN
    """Stages that keep the weights they start with."""

    drawn: int = 2400
    """Drawn pictures, made anew for each training."""

    real_share: float = 0.5
    """How many places of a batch come from real pictures."""

    aside: int = 8
    """One in so many groups of pictures is kept aside for validation."""

    seed: int = 1
    """Of the drawings, the views and the new layers."""
