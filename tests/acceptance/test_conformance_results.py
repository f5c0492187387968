"""Every readable file and series of the test data has an outcome, and the kept table says which."""

from pathlib import Path

from tests.acceptance.conformance_results import TABLE, outcomes, table


def test_every_file_has_a_result_or_a_reason(data_dir: Path) -> None:
    """Nothing but a refusal is raised, no result has an error that its source lacks, the table is in sync."""
    found = outcomes(data_dir)
    assert len(found) == 129 + 8
    assert {outcome.source: outcome.new_errors for outcome in found if outcome.new_errors} == {}
    assert table(found) == TABLE.read_text()
