"""The explanation card of one observation: what a person has to know beside the observation to judge it.

Rule, measured values, level, duration and uncertainty stand in the report that carries the card, and only there: the
camera process changes two of them when it closes what a model process left open. Pure.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from appliance.policy import Strict

NO_CARD = "no card: recorded by an older version"
NO_MODEL = "none takes part in this rule"
HASH_DIGITS = 12

Words = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
ModelName = Annotated[str, Field(min_length=1, max_length=64)]
ShortHash = Annotated[str, Field(pattern=rf"^[0-9a-f]{{{HASH_DIGITS}}}$")]

LABELS = {
    "baseline": "baseline",
    "light": "light",
    "occlusion": "hidden",
    "models": "models",
    "policy": "policy",
    "error_rate": "measured error",
    "does_not_show": "does not show",
}


class Card(Strict):
    """Every field is needed and none is empty; `models` has none only where no network takes part."""

    baseline: Words = Field(
        description="the usual direction that it is judged against, and how long it was learned"
    )
    light: Words = Field(description="share of the time by picture quality")
    occlusion: Words = Field(
        description="share of the time that could be assessed, and why the rest could not"
    )
    models: dict[ModelName, ShortHash] = Field(
        description="file of each model that took part, with the first digits of its SHA-256", max_length=8
    )
    policy: Words = Field(description="id and version of the exam's signed policy")
    error_rate: str = Field(
        description="what was measured of this rule in this condition, on what",
        min_length=1,
        max_length=600,
        pattern=r"\S",
    )
    does_not_show: Words


def card_lines(card: Card | None) -> tuple[tuple[str, str], ...]:
    """(label, text) of each field for a person, in the order of the card; one line says that there is none."""
    if card is None:
        return (("card", NO_CARD),)
    models = ", ".join(f"{file} {digits}" for file, digits in card.models.items()) or NO_MODEL
    texts = card.model_dump() | {"models": models}
    return tuple((label, str(texts[name])) for name, label in LABELS.items())
