"""Rules over a whole series."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as ItemSequence
from pydicom.tag import Tag

from node.config import Condition, Rule
from node.route.rules import Decision, decide, explain, keywords


def header(**values: object) -> Dataset:
    """A slice's header with a few attributes, of which `values` replace or add some; None removes one."""
    ds = Dataset()
    fields: dict[str, object] = {
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SliceThickness": "2.50",
        "PixelSpacing": ["0.7", "0.8"],
        "SeriesDescription": "Thorax duenn",
        "StudyInstanceUID": "1.2.3",
        "InstanceNumber": 5,
    }
    for keyword, value in (fields | values).items():
        if value is not None:
            setattr(ds, keyword, value)
    return ds


def scout(**values: object) -> Dataset:
    return header(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SliceThickness="600", **values)


def rule(**when: Condition) -> Rule:
    return Rule(name="r", when=when, pipelines=("p",), send_to=("archive",))


def decided(headers: Sequence[Dataset], **when: Condition) -> Decision:
    (decision,) = decide([rule(**when)], headers, calling_ae="CT1", called_ae="AENODE")
    return decision


@pytest.mark.parametrize(
    ("keyword", "condition", "matches"),
    [
        ("Modality", "CT", True),
        ("Modality", "ct", True),
        ("Modality", "MR", False),
        ("Modality", ["MR", "CT"], True),
        ("Modality", ["MR", "PT"], False),
        ("SliceThickness", 2.5, True),
        ("SliceThickness", "2.5", False),  # text against text: "2.50"
        ("SliceThickness", "<= 2.5", True),
        ("SliceThickness", "< 2.5", False),
        ("SliceThickness", ">=2.5", True),
        ("SliceThickness", "> 2.5", False),
        ("SliceThickness", ["> 3", "<= 2.5"], True),
        ("InstanceNumber", 5, True),
        ("InstanceNumber", [4, 5], True),
        ("PixelSpacing", "<= 0.8", True),
        ("PixelSpacing", "<= 0.7", False),  # every value must
        ("ImageType", "AXIAL", True),  # any value may
        ("ImageType", "~ ^AXIAL$", True),
        ("ImageType", r"~ ORIGINAL\\PRIMARY", True),
        ("ImageType", "!~ LOCALIZER", True),
        ("ImageType", "!~ PRIM", False),
        ("SeriesDescription", "~ thorax|chest", True),
        ("SeriesDescription", "~ ^duenn", False),
        ("SeriesDescription", " Thorax Duenn ", True),
        ("SeriesDescription", "<= 3", False),  # not a number
        ("BodyPartExamined", "absent", True),
        ("BodyPartExamined", "CHEST", False),
        ("BodyPartExamined", "~ .*", False),
        ("BodyPartExamined", "!~ HEAD", True),
        ("BodyPartExamined", "<= 3", False),
        ("BodyPartExamined", ["CHEST", "absent"], True),
        ("Modality", "absent", False),
        ("StudyInstanceUID", "1.2.3", True),
        ("calling_ae", "CT1", True),
        ("calling_ae", "ct1", False),  # AE titles differ by case
        ("calling_ae", "~ ^CT", True),
        ("called_ae", ["OTHER", "AENODE"], True),
        ("instances", 3, True),
        ("instances", ">= 4", False),
    ],
)
def test_a_condition_holds_or_not(keyword: str, condition: Condition, matches: bool) -> None:
    """Each kind of condition on three like slices."""
    assert decided([header()] * 3, **{keyword: condition}).matched is matches


@pytest.mark.parametrize("empty", [header(SliceThickness=""), header(SliceThickness=None)])
def test_empty_is_absent(empty: Dataset) -> None:
    """An attribute without a value counts as one that is not there."""
    assert decided([empty], SliceThickness="absent").matched
    assert not decided([empty], SliceThickness="<= 9").matched


def test_localizers_do_not_count() -> None:
    """One scout among the slices changes nothing: neither its type, nor its thickness, nor the count."""
    slices = [scout(), *[header()] * 3]
    assert decided(slices, ImageType="!~ LOCALIZER", SliceThickness="<= 2.5", instances=3).matched


def test_a_series_of_localizers_is_seen_as_one() -> None:
    """Where there is nothing else, localizers are what the rules see."""
    decision = decided([scout()] * 2, ImageType="!~ LOCALIZER", Modality="CT")
    assert [f.attribute for f in decision.failures] == ["ImageType"]
    assert decided([scout()] * 2, ImageType="LOCALIZER", instances=2).matched


def test_one_slice_that_differs_fails_the_series() -> None:
    """A condition holds for every slice or not at all; the failure says for how many and with which value."""
    decision = decided([*[header()] * 3, header(SliceThickness="5")], SliceThickness="<= 2.5")
    (failure,) = decision.failures
    assert (failure.failed, failure.instances, failure.values) == (1, 4, ("5",))
    assert failure.sentence() == "SliceThickness is 5, in 1 of 4 instances; the rule asks for '<= 2.5'"


def test_every_condition_that_failed_is_told() -> None:
    """A rule that does not match lists each of its failed conditions, not the first."""
    decision = decided([header()], Modality="MR", SliceThickness="< 1", ImageType="AXIAL")
    assert [f.attribute for f in decision.failures] == ["Modality", "SliceThickness"]


def test_a_rule_without_conditions_matches_everything() -> None:
    """An empty `when` asks for nothing."""
    assert decided([header()]).matched


@pytest.mark.parametrize("condition", ["<= 9", "absent", "!~ x", "~ .", 3])
def test_a_value_that_cannot_be_decoded_fails_every_condition(condition: Condition) -> None:
    """A number of three bytes neither passes a comparison nor counts as absent or as not matching."""
    ds = header()
    ds[Tag("Rows")] = RawDataElement(Tag("Rows"), "US", 3, b"123", 0, False, True)
    (failure,) = decided([ds], Rows=condition).failures
    assert failure.values == ("(cannot be decoded)",)


def test_a_value_against_its_representation_is_compared_quietly(caplog: pytest.LogCaptureFixture) -> None:
    """A code string in lower case with odd signs is compared as it is, and no log quotes it."""
    ds = header(Modality=None)
    ds[Tag("Modality")] = RawDataElement(Tag("Modality"), "CS", 6, b"c(t)?!", 0, False, True)
    assert decided([ds], Modality="C(T)?!").matched
    assert caplog.records == []


def test_sequences_are_there_or_not() -> None:
    """Of a sequence, a rule can ask whether it is absent."""
    ds = header(ContributingEquipmentSequence=ItemSequence([Dataset()]))
    assert not decided([ds], ContributingEquipmentSequence="absent").matched
    assert decided([header()], ContributingEquipmentSequence="absent").matched


def test_a_regular_expression_that_runs_away_is_stopped() -> None:
    """A pattern of exponential time fails within a moment, whether it is to match or not to match."""
    ds = header(SeriesDescription="a" * 60 + "!")
    began = time.monotonic()
    for sign in ("~", "!~"):
        assert not decided([ds], SeriesDescription=f"{sign} ^(a|aa)+$").matched
    assert time.monotonic() - began < 3


def test_an_explanation_names_the_rule_and_the_value() -> None:
    """Each rule has its line, and what failed follows with its value; control characters are escaped."""
    rules = [
        Rule(name="thin", when={"SliceThickness": "<= 1"}, pipelines=("p",), send_to=("archive",)),
        Rule(name="any CT", when={"Modality": "CT"}, pipelines=("p", "q"), send_to=("archive",)),
        Rule(name="named", when={"SeriesDescription": "x"}, pipelines=("p",), send_to=("archive",)),
    ]
    ds = header(SeriesDescription="red\x1b[31m")
    assert explain(rules, [ds], calling_ae="CT1", called_ae="AENODE") == [
        "thin: does not match",
        "  SliceThickness is 2.50; the rule asks for '<= 1'",
        "any CT: matches; p, q → archive",
        "named: does not match",
        "  SeriesDescription is red\\x1b[31m; the rule asks for 'x'",
    ]


def test_an_explanation_lists_few_of_many_values() -> None:
    """A value that differs in every slice is shown five times, and the rest are counted."""
    slices = [header(InstanceNumber=n) for n in range(20)]
    (failure,) = decided(slices, InstanceNumber="> 99").failures
    assert failure.sentence() == "InstanceNumber is 0, 1, 2, 3, 4 and 15 more; the rule asks for '> 99'"


def test_keywords_are_what_the_rules_read() -> None:
    """The keywords to read from files: those of the rules, and ImageType to know localizers by."""
    assert keywords([rule(Modality="CT", calling_ae="x", instances=3)]) == {"Modality", "ImageType"}


TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"), max_size=12)


@given(st.lists(TEXTS, max_size=4))
def test_not_matching_is_the_opposite_of_matching(values: list[str]) -> None:
    """On one slice, with a value or without, exactly one of `~ x` and `!~ x` holds."""
    ds = header(OperatorsName=values)
    held = [decided([ds], OperatorsName=f"{sign} a").matched for sign in ("~", "!~")]
    assert sum(held) == 1


@given(value=st.floats(-1e6, 1e6).map(lambda v: f"{v:.5g}"), limit=st.integers(-1000, 1000))
def test_a_number_meets_one_of_three_comparisons(value: str, limit: int) -> None:
    """Of less, equal and greater exactly one holds for a decimal string."""
    ds = header(SliceThickness=value)
    held = [decided([ds], SliceThickness=c).matched for c in (f"< {limit}", limit, f"> {limit}")]
    assert sum(held) == 1


@given(order=st.permutations(range(6)))
def test_the_order_of_the_slices_does_not_matter(order: list[int]) -> None:
    """A decision is the same for every order of the instances."""
    slices = [scout(), header(), header(SliceThickness="1"), header(Modality="MR"), header(), header()]
    when: dict[str, Condition] = {"SliceThickness": "<= 2", "Modality": "CT", "instances": 5}
    decision = decided([slices[n] for n in order], **when)
    assert [(f.attribute, f.failed) for f in decision.failures] == [("SliceThickness", 4), ("Modality", 1)]
