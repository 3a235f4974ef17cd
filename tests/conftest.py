"""Figures that tests measure and do not judge: they are told at the end, whatever the output is like."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded with ``record_property``."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    told = [report for report in reports if report.user_properties and report.when == "call"]
    if told:
        terminalreporter.section("figures")
    for report in told:
        figures = ", ".join(f"{name} {figure}" for name, figure in report.user_properties)
        terminalreporter.line(f"{report.nodeid.rpartition('::')[2]}: {figures}")
