"""The doors agree: pyproject.toml, the lock, environment.yml, Makefile, workflows, licences, and where the
project is hosted."""

import json
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REPOSITORY, HOMEPAGE = PROJECT["project"]["urls"]["Repository"], PROJECT["project"]["urls"]["Homepage"]
LOCK, OLDEST = (
    [Requirement(line) for line in (ROOT / name).read_text().splitlines()]
    for name in ("requirements.lock", "requirements-oldest.lock")
)
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
PYTHONS = [c.rpartition(" ")[2] for c in PROJECT["project"]["classifiers"] if "Python :: 3." in c]
PLATFORMS = {"linux": "posix", "darwin": "posix", "win32": "nt"}
LEFT_OUT = {"tensorflow", "tf2jax"}


EXTRAS = PROJECT["project"]["optional-dependencies"]


def declared(*, extras=tuple(EXTRAS), groups=("build", "neural-tangents")) -> dict[str, Requirement]:
    """Every requirement that pyproject.toml names, by canonical name."""
    lines = PROJECT["project"]["dependencies"] + sum((EXTRAS[extra] for extra in extras), [])
    lines += sum((PROJECT["dependency-groups"][group] for group in groups), [])
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def pins(python: str, platform: str, lock: list[Requirement]) -> dict[str, Version]:
    """What a lock installs there; a name pinned twice is an error."""
    place = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": platform}
    place |= {"os_name": PLATFORMS[platform], "implementation_name": "cpython"}
    found: dict[str, Version] = {}
    for requirement in lock:
        if requirement.marker is None or requirement.marker.evaluate(place):
            (specifier,) = requirement.specifier
            assert specifier.operator == "==" and requirement.name not in found, requirement
            found[requirement.name] = Version(specifier.version)
    return found


# --- pyproject.toml, requirements.lock, environment.yml


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_lock_pins_every_declared_requirement_within_its_range(python, platform):
    pinned = pins(python, platform, LOCK)
    wrong = [
        str(r) for name, r in declared().items() if name not in pinned or pinned[name] not in r.specifier
    ]
    assert not wrong


@pytest.mark.parametrize("platform", PLATFORMS)
def test_oldest_lock_pins_the_lowest_version_of_every_range(platform):
    asked = declared(extras=("compat", "book", "test"))
    lowest = {
        name: Version(s.version)
        for name, r in asked.items()
        for s in r.specifier
        if s.operator in (">=", "==")
    }
    pinned = pins(PYTHONS[0], platform, OLDEST)
    assert lowest.keys() == asked.keys() and {name: pinned.get(name) for name in asked} == lowest


def test_lock_holds_only_what_is_asked_for():
    here = default_environment()
    reached, waiting = set(), [(name, extra) for name, r in declared().items() for extra in {"", *r.extras}]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in reached or name in LEFT_OUT:
            continue
        reached.add((name, extra))
        for r in map(Requirement, metadata.requires(name) or []):
            if r.marker is None or r.marker.evaluate(here | {"extra": extra}):
                waiting += [(canonicalize_name(r.name), each) for each in {"", *r.extras}]
    locked = {r.name for r in LOCK if r.marker is None or r.marker.evaluate(here)}
    assert locked == {name for name, _ in reached}


@pytest.mark.parametrize("lock", [LOCK, OLDEST], ids=["newest", "oldest"])
def test_lock_has_no_address_and_no_tensorflow(lock):
    assert not [r for r in lock if r.url or "://" in str(r)]
    assert not LEFT_OUT & {r.name for r in lock}


def test_make_lock_covers_every_dependency_group():
    groups = set(re.findall(r"--group (\S+)", (ROOT / "Makefile").read_text()))
    assert groups == set(PROJECT["dependency-groups"])


def test_conda_environment_is_pyproject_without_neural_tangents():
    conda = {canonicalize_name(r.name): r.specifier for r in map(Requirement, CONDA["dependencies"])}
    around = {"python": PROJECT["project"]["requires-python"], "nodejs": ">=18", "pip": ""}
    assert {name: str(conda.pop(name)) for name in around} == around
    assert conda == {name: r.specifier for name, r in declared(groups=["build"]).items()}


def test_every_locked_package_of_node_runs_in_the_oldest_that_make_takes():
    (oldest,) = set(re.findall(r"Node (\d+) or newer", (ROOT / "Makefile").read_text()))
    locks = [ROOT / folder / "package-lock.json" for folder in ("notebooks", "tests/site")]
    packages = {
        name: package for lock in locks for name, package in json.loads(lock.read_text())["packages"].items()
    }
    asked = {name: package["engines"]["node"] for name, package in packages.items() if "engines" in package}
    assert asked
    assert not {
        name: node for name, node in asked.items() if int(re.match(r">=\s*(\d+)", node)[1]) > int(oldest)
    }


def test_conda_environment_says_how_to_add_neural_tangents():
    (pinned,) = PROJECT["dependency-groups"]["neural-tangents"]
    header = (ROOT / "environment.yml").read_text().partition("\nname:")[0]
    assert (
        f"conda run -n {CONDA['name']} python -m pip install --no-deps --no-build-isolation -e . {pinned}"
        in header
    )


# --- citation and licences


def test_citation_is_valid_and_agrees_with_pyproject():
    path = ROOT / "CITATION.cff"
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format"]
    assert subprocess.run([*check, path]).returncode == 0
    citation, project = yaml.safe_load(path.read_text()), PROJECT["project"]
    assert (citation["version"], citation["repository-code"], citation["url"]) == (
        project["version"],
        REPOSITORY,
        HOMEPAGE,
    )
    assert citation["license"] == [project["license"], "CC-BY-4.0"]
    assert citation["authors"] == project["authors"]


def test_licence_texts_are_there():
    mit, by = ((ROOT / name).read_text() for name in ("LICENSE", "LICENSE-CC-BY-4.0"))
    assert mit.startswith("MIT License\n") and "SPDX: CC-BY-4.0" in mit and "LICENSE-CC-BY-4.0" in mit
    assert by.startswith("Attribution 4.0 International\n") and "Section 8 -- Interpretation." in by


# --- what no file may say


def texts(root: Path = ROOT, inline_images: bool = False) -> dict[str, str]:
    """The text files under `root` that .gitignore does not name, without the data of inline images."""
    ignored = [
        line.rstrip("/") for line in (root / ".gitignore").read_text().splitlines() if line and line[0] != "#"
    ]
    found = {}
    for folder, folders, files in os.walk(root):
        here = Path(folder).relative_to(root)
        left_out = {n for n in folders for i in ignored if fnmatch(n, i) or fnmatch(str(here / n), i)}
        folders[:] = set(folders) - left_out - {".git"}
        for name in set(files) - {".git"}:  # a file in a second work tree
            try:
                found[str(here / name)] = (root / here / name).read_text()
            except UnicodeDecodeError:
                continue  # not a text
    if not inline_images:
        found = {path: re.sub(r"base64,[A-Za-z0-9+/=]+", "", text) for path, text in found.items()}
    return found


def strangers(text: str, repository: str = REPOSITORY, homepage: str = HOMEPAGE) -> set[str]:
    """Addresses of repositories and pages that neither follow from the setting nor belong to a project we
    name."""
    hosted = re.compile(
        r"(?:github\.com|githubusercontent\.com|google\.com/github)/([\w.-]+/[\w.-]+)|([\w-]+\.github\.io(?:/[\w-]+)?)"
    )
    ours = {repository.partition("github.com/")[2], homepage.partition("://")[2].rstrip("/")}
    theirs = {"google/neural-tangents", "jax-ml/jax"}
    return (
        {(repo or page).removesuffix(".git").rstrip(".") for repo, page in hosted.findall(text)}
        - ours
        - theirs
    )


FORBIDDEN = re.compile(
    "|".join(
        [
            r"py" r"pi\.org",
            r"python" r"hosted",
            r"npm" r"js\.",
            r"anaconda" r"\.(?:org|com)",
            r"debian" r"\.org",
        ]
    )
    + r"|(?<![\w.}])/(?:work|tmp|root|home|Users|opt)/"
)


def moved_away(root: Path, *setting: str) -> dict[str, set[str]]:
    """The files, but for the tests with their planted addresses, that hold an address of somebody else."""
    found = {
        path: strangers(text, *setting) for path, text in texts(root).items() if not path.startswith("tests")
    }
    return {path: addresses for path, addresses in found.items() if addresses}


def test_every_address_follows_from_the_hosting_setting():
    assert moved_away(ROOT) == {}


@pytest.mark.parametrize(
    "address",
    [
        f"git clone {REPOSITORY}.git",
        f"{HOMEPAGE}00_start_here.html",
        REPOSITORY.replace("github.com", "colab.research.google.com/github")
        + "/blob/main/notebooks/00_start_here.ipynb",
        REPOSITORY.replace("github.com", "raw.githubusercontent.com") + "/main/README.md",
    ],
)
def test_an_address_that_does_not_follow_is_found(address):
    owner = REPOSITORY.split("/")[-2]
    assert strangers(address) == set() != strangers(address.replace(owner, "somebody-else"))


@pytest.mark.slow
def test_make_links_moves_every_address(tmp_path):
    owner = "somebody-else"
    new = {REPOSITORY: f"https://github.com/{owner}/book", HOMEPAGE: f"https://{owner}.github.io/book/"}
    for path, text in texts(inline_images=True).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    setting = tmp_path / "pyproject.toml"
    setting.write_text(re.sub("|".join(new), lambda match: new[match[0]], setting.read_text()))
    for command in (["links.py"], ["notebooks.py", "links"]):
        subprocess.run([sys.executable, *command], cwd=tmp_path / "tools", check=True)
    assert moved_away(tmp_path, *new.values()) == {}


def test_no_file_names_a_registry_host_or_a_path_of_one_machine():
    found = {path: FORBIDDEN.findall(text) for path, text in texts().items()}
    assert {path: hits for path, hits in found.items() if hits} == {}


@pytest.mark.parametrize(
    "planted", ["https://files.python" + "hosted.org/x.whl", "see /" + "tmp/figure.png", '"/' + 'home/me"']
)
def test_a_registry_host_or_a_path_of_one_machine_is_found(planted):
    inside = "notebooks/" + "tmp/x.png https://example.org/home/"
    assert FORBIDDEN.search(planted) and not FORBIDDEN.search(inside)
