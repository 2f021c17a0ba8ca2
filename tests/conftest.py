from policies.compiled import native


def pytest_report_header() -> str:
    return "policies: " + ("compiled" if native else "plain Python, nothing compiled: what compares the two is skipped")
