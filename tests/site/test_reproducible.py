"""Two builds from nothing, in two folders, give the same bytes."""

# Files that may differ, each with the reason.
DIFFER: dict[str, str] = {}


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_two_builds_are_the_same(site, build):
    one, other = files(site), files(build())
    assert len(one) > 100
    assert one.keys() == other.keys()
    assert {name for name in one if one[name] != other[name]} == set(DIFFER)
