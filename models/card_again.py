"""CARD.md of a model with figures that were measured after it was packed, on other data."""

from collections.abc import Mapping
from typing import Any

from models.card_anomaly import card_text
from models.card_denoiser import denoiser_card_text
from models.pack_vae import vae_card_text
from models.weights import LoadedModel, WeightsError

_MADE = "## Made by\n"
_MEASURED = "## Measured by\n"
_TOLD = ("description", "training_data", "warning", "command", "git", "steps")


def require_told(model: LoadedModel) -> None:
    """Raise WeightsError where a model does not tell where it comes from, as every card must."""
    missing = [key for key in _TOLD if key not in model.card.get("lineage", {})]
    if missing or "licence" not in model.card:
        raise WeightsError(
            f"model {model.name} does not tell its lineage ({', '.join(missing) or 'licence'}), "
            "so that no card can be written for it"
        )


def card_again(
    model: LoadedModel, figures: Mapping[str, Any], *, command: str, people: int, slices: int
) -> str:
    """CARD.md of `model` with `figures`, which `command` measured on so many people and slices.

    Raises WeightsError where the model's own card lacks what the text tells.
    """
    require_told(model)
    card = {key: value for key, value in model.card.items() if key != "measured_by"}
    # A name of a file must not end the block of code that it stands in.
    shown = "".join(letter if letter.isprintable() else "?" for letter in command)
    try:
        if model.kind == "denoiser":
            text = denoiser_card_text({**card, "metrics": figures, "measured_by": shown}, dict(figures))
        else:
            render = card_text if model.kind == "anomaly" else vae_card_text
            text = render({**card, "metrics": figures}, dict(figures))
    except KeyError as error:
        raise WeightsError(f"model {model.name} does not tell {error}, which its card needs") from error
    before, _, after = text.rpartition(_MADE)
    by = [] if _MEASURED in before else [_MEASURED, f"    {shown}", ""]
    told = (
        f"Measured after the model was packed, on the --data of this command: {people} people, {slices} "
        f"slices. The weights are those of {model.name} {model.version}, SHA-256 {model.weights_sha256}; "
        "its own card has the figures it was packed with."
    )
    return before + "\n".join([*by, told, "", _MADE]) + after
