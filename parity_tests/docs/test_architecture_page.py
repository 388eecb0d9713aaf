"""docs/architecture.md has a line for each folder and file, and its picture the stages of the pipeline."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from conftest import REPOSITORY
from rnnx_export.pipeline import ROUTES, STAGES

PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()
PICTURE = REPOSITORY / "docs" / "pictures" / "architecture.svg"
NESTED = {"graph/passes/", "lowering/ops/"}


@pytest.mark.parametrize(
    "package", ["exporter/rnnx_export", "runtimes/python/rnnx", "runtimes/native/rnnx_native"]
)
def test_each_folder_and_file_of_a_package_has_its_line(package: str) -> None:
    _, _, behind = PAGE.partition(f"`{package}`:\n")
    table = re.match(r"\n((?:\|.*\n)+)", behind)
    assert table is not None
    cells = [row.split("|")[1] for row in table[1].splitlines()[2:]]
    listed = [name for cell in cells for name in re.findall(r"`(.+?)`", cell)]
    there = [
        path.name + "/" * path.is_dir()
        for path in (REPOSITORY / package).iterdir()
        if path.name not in ("__init__.py", "__pycache__", "py.typed")
    ]
    assert sorted(set(listed) - NESTED) == sorted(there)
    assert len(listed) == len(set(listed))


def test_the_picture_has_the_stages_and_routes_of_the_pipeline() -> None:
    texts = [each for each in ElementTree.parse(PICTURE).iter() if each.tag.endswith("text")]
    drawn = [each.text for each in texts if "stage" in each.get("class", "").split()]
    assert drawn == [stage.__name__.strip("_").replace("_", " ") for stage in STAGES]
    said = f"two routes, {' and '.join(route.name for route in ROUTES)}"
    assert said in [each.text for each in texts]
