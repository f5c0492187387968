"""`[[pipelines]]` and `[[rules]]`: what is done with which series."""

import re
from typing import Literal

import regex
from pydantic import Field, field_validator
from pydicom.datadict import tag_for_keyword

from node.config.values import Name, Section
from node.job import DEFAULT_OUTPUTS, Output

RULE_WORDS = frozenset({"calling_ae", "called_ae", "instances"})


class Pipeline(Section):
    """A model with its settings and its outputs."""

    name: Name
    model: str = Field(min_length=1)
    outputs: tuple[Output, ...] = Field(DEFAULT_OUTPUTS, min_length=1)
    strength: float | None = Field(None, ge=0, le=1)  # without it the model's own
    limit_sigma: float = Field(3, gt=0, le=10)


Condition = str | int | float | list[str | int | float]


class Rule(Section):
    """A predicate over a series; all its conditions must hold."""

    name: Name
    when: dict[str, Condition]
    pipelines: tuple[str, ...] = Field(min_length=1)
    send_to: tuple[str, ...] = Field(min_length=1)
    priority: Literal["stat", "routine"] | None = None
    late: Literal["reprocess", "ignore", "alert"] = "reprocess"
    retire_superseded: bool = False
    notice: bool = False

    @field_validator("when")
    @classmethod
    def _conditions_are_known(cls, when: dict[str, Condition]) -> dict[str, Condition]:
        for keyword, condition in when.items():
            if keyword not in RULE_WORDS and tag_for_keyword(keyword) is None:
                allowed = "a DICOM keyword such as Modality, or " + ", ".join(sorted(RULE_WORDS))
                raise ValueError(f"{keyword!r} is not known; allowed: {allowed}")
            for operand in condition if isinstance(condition, list) else [condition]:
                _check_operand(keyword, operand)
        return when


def _check_operand(keyword: str, operand: str | float) -> None:
    if not isinstance(operand, str):
        return
    if match := re.match(r"(<=|>=|<|>)\s*(.*)$", operand):
        try:
            float(match[2])
        except ValueError:
            raise ValueError(f'{keyword}: "{match[1]}" needs a number after it, such as "<= 2.5"') from None
    elif match := re.match(r"!?~\s*(.*)$", operand):
        try:
            regex.compile(match[1])
        except regex.error as error:
            raise ValueError(f"{keyword}: not a regular expression: {error}") from None
