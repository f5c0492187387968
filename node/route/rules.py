"""Which rules a series meets, and which attribute failed for each other. Pure.

What a condition means over a whole series:

* Localizers (a value of ImageType is LOCALIZER) do not count, as the workers leave them out,
  unless the series holds nothing else. So `ImageType = "!~ LOCALIZER"` matches a series of 300
  slices with one scout among them, and not a series of scouts.
* A condition must hold for every instance that counts. `SliceThickness = "<= 2.5"` fails for a
  series of which one slice is 5 mm thick; `explain` shows that value.
* Several values in one attribute: equality and `~` hold if any value meets them (`~` also
  if all of them, joined by a backslash, do), `<= n` if every value does, `!~` if none matches.
* An attribute that is missing or empty fails every condition but `absent` and `!~`. One that
  cannot be decoded fails every condition.
* Text is compared without regard to case and to spaces around it, UIDs and AE titles exactly;
  a number with the value as a number, so 5 meets "5.0". Regular expressions search, ignore
  case, see the first 1024 characters, and fail after a tenth of a second.
* A list holds where any of its entries does; each may be any of these conditions.
* `instances` is the number of instances that count; `calling_ae` and `called_ae` are those of
  the association that opened the revision.
"""

import operator
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import regex
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue

from node.config import RULE_WORDS, Condition, Rule
from node.log import escape

PRIORITY = "RequestedProcedurePriority"  # (0040,1003): STAT, HIGH, ROUTINE, MEDIUM, LOW
_LONGEST_TEXT = 1024
_REGEX_SECONDS = 0.1
_SHOWN = 5  # distinct values that an explanation lists

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
# What decoding a hostile element makes pydicom raise.
UNDECODABLE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    OverflowError,
    struct.error,
    BytesLengthException,
)


@dataclass(frozen=True, slots=True)
class Found:
    """The values of one attribute of one instance; none where it is missing or empty."""

    values: tuple[str, ...] = ()
    exact: bool = False  # a UID or an AE title: case matters
    undecodable: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A condition that did not hold. `values` may identify a patient: for the terminal only."""

    attribute: str
    condition: str
    values: tuple[str, ...]  # distinct ones among those that failed; "(absent)" for none
    failed: int  # instances for which it did not hold
    instances: int  # that were asked

    def sentence(self) -> str:
        """What failed, with its values, control characters escaped."""
        shown = ", ".join(escape(value) for value in self.values[:_SHOWN])
        more = f" and {len(self.values) - _SHOWN} more" if len(self.values) > _SHOWN else ""
        share = "" if self.failed == self.instances else f", in {self.failed} of {self.instances} instances"
        return f"{self.attribute} is {shown}{more}{share}; the rule asks for {self.condition}"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a series meets a rule; `failures` is empty where it does."""

    rule: Rule
    failures: tuple[Failure, ...]

    @property
    def matched(self) -> bool:
        """Whether every condition holds."""
        return not self.failures


def keywords(rules: Iterable[Rule]) -> set[str]:
    """The DICOM keywords that `decide` reads for these rules."""
    return {"ImageType"} | {keyword for rule in rules for keyword in rule.when if keyword not in RULE_WORDS}


def decide(
    rules: Iterable[Rule], headers: Sequence[Dataset], *, calling_ae: str, called_ae: str
) -> list[Decision]:
    """One decision a rule, in their order, over the headers of all instances of a series."""
    with unjudged():
        counted = [ds for ds in headers if not _is_localizer(ds)] or list(headers)
        found: dict[str, list[Found]] = {
            "calling_ae": [Found((calling_ae,), exact=True)],
            "called_ae": [Found((called_ae,), exact=True)],
            "instances": [Found((str(len(counted)),))],
        }
        decisions = []
        for rule in rules:
            failures = []
            for attribute, condition in rule.when.items():
                if attribute not in found:
                    found[attribute] = [values_of(ds, attribute) for ds in counted]
                if failure := _failure(attribute, condition, found[attribute]):
                    failures.append(failure)
            decisions.append(Decision(rule, tuple(failures)))
    return decisions


def explain(
    rules: Iterable[Rule], headers: Sequence[Dataset], *, calling_ae: str, called_ae: str
) -> list[str]:
    """For each rule whether it matches and, if not, why: lines for a terminal, never for a log."""
    lines = []
    for decision in decide(rules, headers, calling_ae=calling_ae, called_ae=called_ae):
        rule = decision.rule
        if decision.matched:
            lines.append(f"{rule.name}: matches; {', '.join(rule.pipelines)} → {', '.join(rule.send_to)}")
            continue
        lines.append(f"{rule.name}: does not match")
        lines += [f"  {failure.sentence()}" for failure in decision.failures]
    return lines


@contextmanager
def unjudged() -> Iterator[None]:
    """Values are taken as they are: pydicom would say what is wrong with one, and quote it."""
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def values_of(ds: Dataset, keyword: str) -> Found:
    """The values of an attribute as text, without the spaces around them; to be called `unjudged`."""
    try:
        if keyword not in ds:
            return Found()
        element = ds[keyword]
        value: Any = element.value
        if element.VR == "SQ":
            return Found(("(a sequence)",) if value else ())
        parts = value if isinstance(value, MultiValue | list | tuple) else [value]
        texts = tuple(text for part in parts if (text := _text(part)))
    except UNDECODABLE:
        return Found(("(cannot be decoded)",), undecodable=True)
    return Found(texts, exact=element.VR in {"UI", "AE"})


def _text(value: object) -> str:
    if value is None:
        return ""
    text = value.decode("ascii", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text.strip(" \0")[:_LONGEST_TEXT]


def is_urgent(ds: Dataset) -> bool:
    """Whether an image says STAT or HIGH in RequestedProcedurePriority; to be called `unjudged`."""
    return bool({value.upper() for value in values_of(ds, PRIORITY).values} & {"STAT", "HIGH"})


def _is_localizer(ds: Dataset) -> bool:
    return "LOCALIZER" in {value.upper() for value in values_of(ds, "ImageType").values}


def _failure(attribute: str, condition: Condition, found: Sequence[Found]) -> Failure | None:
    operands = condition if isinstance(condition, list) else [condition]
    # Most attributes are the same in every slice: each distinct one is asked once.
    held = {one: any(_holds(operand, one) for operand in operands) for one in set(found)}
    failed = [one for one in found if not held[one]]
    if not failed:
        return None
    values = dict.fromkeys("\\".join(one.values) or "(absent)" for one in failed)
    said = " or ".join(repr(operand) for operand in operands)
    return Failure(attribute, said, tuple(values), len(failed), len(found))


def _holds(operand: str | float, found: Found) -> bool:
    if found.undecodable:
        return False
    if not isinstance(operand, str):
        return any(_number(value) == operand for value in found.values)
    text = operand.strip()
    if text == "absent":
        return not found.values
    if text.startswith("!~"):
        return not _matches(text[2:].strip(), found.values, on_timeout=True)
    if text.startswith("~"):
        return _matches(text[1:].strip(), found.values, on_timeout=False)
    return _compares(text, found)


def _compares(text: str, found: Found) -> bool:
    """A comparison such as "<= 2.5", or else equality."""
    for sign, compare in _COMPARISONS.items():
        if text.startswith(sign):
            limit = float(text[len(sign) :])
            numbers = [_number(value) for value in found.values]
            return bool(numbers) and all(n is not None and compare(n, limit) for n in numbers)
    if found.exact:
        return text in found.values
    return text.casefold() in {value.casefold() for value in found.values}


def _matches(pattern: str, values: Sequence[str], *, on_timeout: bool) -> bool:
    """Whether the pattern is found in a value, or in all of them joined; `on_timeout`: the answer then."""
    compiled = regex.compile(pattern, regex.IGNORECASE)
    try:
        return any(
            compiled.search(text, timeout=_REGEX_SECONDS) is not None
            for text in dict.fromkeys((*values, "\\".join(values)[:_LONGEST_TEXT]))
            if values
        )
    except TimeoutError:
        return on_timeout


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
