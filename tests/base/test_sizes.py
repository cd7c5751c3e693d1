"""Sizes in bytes as people write them."""

import pytest

from headgate._base.sizes import checked_size


@pytest.mark.parametrize(("written", "size"), [
    (1, 1), (2**62, 2**62), ("1B", 1), ("64 MiB", 2**26), ("64mib", 2**26), (" 2 KB ", 2000),
    ("1.5 GB", 15 * 10**8), ("0.5 KiB", 512), ("3TiB", 3 * 2**40), ("1.0019 kB", 1001),
    ("4611686018427387904 B", 2**62),
])
def test_sizes(written, size):
    assert checked_size("maxsize", written) == size


@pytest.mark.parametrize("written", [0, -1, 2**62 + 1, "0 MiB", "0.1 B", "4194305 TiB"])
def test_sizes_out_of_range(written):
    with pytest.raises(ValueError, match="maxsize must be from 1 to 2\\*\\*62 bytes, got"):
        checked_size("maxsize", written)


@pytest.mark.parametrize("written", [
    "", "64", "MiB", "64 Mi", "-1 MiB", "1e3 B", "1 2 B", ".5 MB", "\N{ARABIC-INDIC DIGIT THREE} MB",
    "1,5 MB", "5 iB",
])
def test_sizes_that_are_not_readable(written):
    with pytest.raises(ValueError, match='maxsize must be a size such as "64 MiB", got'):
        checked_size("maxsize", written)


@pytest.mark.parametrize("written", [None, 1.5, b"1 MB", object])
def test_sizes_of_wrong_types(written):
    with pytest.raises(TypeError, match='maxsize must be an int or a text such as "64 MiB", got'):
        checked_size("maxsize", written)
