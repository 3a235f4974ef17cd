"""What this process has written to storage, as the kernel counts it."""

from pathlib import Path

from gateway.host.storage import written


def test_the_kernel_counts_it() -> None:
    before = written()
    assert before is not None
    assert before >= 0


def test_it_is_the_bytes_that_went_to_storage_and_not_those_that_were_written_somewhere(tmp_path: Path) -> None:
    counts = tmp_path / "io"
    counts.write_text("rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 4096\n")
    assert written(counts) == 4096


def test_where_the_kernel_does_not_say_it_is_not_known(tmp_path: Path) -> None:
    assert written(tmp_path / "io") is None
