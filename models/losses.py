"""What a network's answer costs, pixel by pixel: squared error, a robust one, and cross-entropy."""

from typing import Literal, get_args

import torch
from torch.nn import functional

Loss = Literal["mse", "charbonnier", "bce"]
LOSSES = get_args(Loss)
OF_NOISE: tuple[Loss, ...] = ("mse", "charbonnier")  # what a denoiser can be taught with: any values
_CHARBONNIER = 1e-3  # of the unit of the error: below it the cost is a parabola


def pixel_error(drawn: torch.Tensor, clean: torch.Tensor, kind: str) -> torch.Tensor:
    """The cost of each pixel. Raises ValueError for another kind.

    "mse" is the square, "charbonnier" nearly the absolute value (Charbonnier et al. 1994), "bce" the
    binary cross-entropy of images in 0 … 1, of which the drawn value is a logit around the middle.
    """
    if kind == "mse":
        return (drawn - clean).square()
    if kind == "charbonnier":
        return ((drawn - clean).square() + _CHARBONNIER**2).sqrt()
    if kind == "bce":
        logits = 4 * (drawn - 0.5)
        return functional.binary_cross_entropy_with_logits(logits, clean.clamp(0, 1), reduction="none")
    raise ValueError(f"no loss {kind!r}; there are {', '.join(LOSSES)}")
