"""A disk that is really full: a file system of a few megabytes, mounted in a namespace of its own."""

import pytest

from bench import faults


@pytest.mark.timeout(900)
def test_runs_on_a_full_disk_wait_are_reported_and_go_on_when_there_is_room():
    figures, why_not = faults.full_disk(fills=2)
    if why_not:
        pytest.skip(why_not)
    assert figures == {"disk_full_lost": 0, "disk_full_unreported": 0, "disk_full_fills": 2}
