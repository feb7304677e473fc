"""The modules that README names in its table of packages, and the files that docs/ name."""

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_TABLE = (_ROOT / "README.md").read_text().partition("## Where the code decides")[2].partition("\n## ")[0]
_COMMAND = "check"  # of `ringcx-archive`
_ROWS = re.findall(r"^\| (`.*?) \| (.*) \|$", _TABLE, re.MULTILINE)
_FILES = sorted(
    {
        (page.name, name)
        for page in (_ROOT / "docs").glob("*.md")
        for name in re.findall(
            r"`((?:pipelines|assets|tests|sandbox|benchmarks|deploy)/[\w/]+\.\w+)`", page.read_text()
        )
    }
)


@pytest.mark.parametrize(("packages", "decides"), _ROWS)
def test_every_module_that_readme_names_is_in_a_package_of_its_row(packages: str, decides: str) -> None:
    folders = [_ROOT / top / name for name in re.findall(r"`([^`]+)`", packages) for top in ("", "pipelines")]
    files = {file for folder in folders for file in (folder, *folder.rglob("*.py"))}
    known = {str(file.with_suffix("")) for file in files if file.is_file()}
    for module in set(re.findall(r"`([\w/]*\w)`", decides)) - {_COMMAND}:
        assert any(file.endswith(f"/{module}") for file in known), module


@pytest.mark.parametrize(("page", "file"), _FILES)
def test_every_file_that_docs_name_exists(page: str, file: str) -> None:
    assert (_ROOT / file).is_file(), page


def test_the_tables_are_read() -> None:
    assert len(_ROWS) > 15
    assert sum(decides.count("`") for _, decides in _ROWS) > 120
    assert len(_FILES) > 5
