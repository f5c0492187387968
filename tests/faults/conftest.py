"""Options of the fault tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=30, help="kill rounds of tests/faults (hundreds by hand)")
    parser.addoption("--fault-seed", type=int, default=1, help="seed of the kill rounds")
