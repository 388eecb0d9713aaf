"""The guides as a site: scripts/docs finds a page for each of their links."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY

sys.path.append(str(REPOSITORY / "scripts"))
import docs


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(docs, "SITE", tmp_path)
    (tmp_path / "style.css").write_text(docs.STYLE)
    return tmp_path


def test_every_link_of_the_guides_leads_somewhere(site: Path) -> None:
    docs.write_guides([])
    assert [(page.name, link) for page, link in docs.broken_links(site)] == []
    assert len(list(site.rglob("*.html"))) > 50
    index = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="docs/shipping.html"' in index
    assert '<img src="docs/pictures/' in index


def test_links_that_lead_nowhere_are_found(site: Path) -> None:
    (site / "one.html").write_text(
        '<a href="two.html#there">1</a><a href="two.html#not">2</a><a href="no.html">3</a>'
    )
    (site / "two.html").write_text(
        '<h2 id="there">There</h2><a href="https://example.org/no">4</a><a href="#no">5</a>'
    )
    assert {(page.name, link) for page, link in docs.broken_links(site)} == {
        ("one.html", "two.html#not"),
        ("one.html", "no.html"),
        ("two.html", "#no"),
    }
