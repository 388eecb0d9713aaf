"""The guides as a site: scripts/docs finds a page for each of their links."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY

sys.path.append(str(REPOSITORY / "scripts"))
import docs

HEADER = """/* A file. */
/* -- Part -- */

/* Both
 * of them. */
int one(void);
int two(int a,
        int b);

struct s {
    int field; /* in it */
};

/* A class. */
class C
{
  public:
    /* A method. */
    void f()
    {
        int x = 1; /* inside */
        /* inside too */
    }

  private:
    int hidden_;
};
"""

GO = """package p // import "p"

Package p does it.

    p.Do()

FUNCTIONS

func Do[T any](x T) error
    Do does it: 1 < 2.

    It may fail.

        code()


TYPES

type S struct {
\tA int

\tB int
}
    S holds it.

const (
\tOne S = iota
\tTwo
)

func (s *S) Get() int
    Get gets it.
"""


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


def test_links_that_leave_the_site_are_broken(site: Path) -> None:
    (site / "one.html").write_text(
        f'<a href="{Path(__file__).as_posix()}">1</a><a href="../">2</a>'
        '<meta http-equiv="refresh" content="0; url=no.html">'
        '<meta name="viewport"><a href="#viewport">3</a><a href="#5">4</a><iframe src="gone.html"></iframe>'
    )
    assert {link for _, link in docs.broken_links(site)} == {
        Path(__file__).as_posix(),
        "../",
        "no.html",
        "#viewport",
        "#5",
        "gone.html",
    }


def test_a_source_that_a_guide_names_is_no_link_in_the_site() -> None:
    held = {path.resolve() for path in (REPOSITORY / "docs").rglob("*.md")}
    page = REPOSITORY / "docs" / "pool.md"
    assert docs.link_of(page, "contract.md#how-it-changes", held) == "contract.html#how-it-changes"
    assert docs.link_of(page, "../scripts/docs.py", held) is None
    assert docs.link_of(page, "../scripts/no_such.py", held) == "../scripts/no_such.py"


def test_each_module_that_a_guide_imports_has_a_page() -> None:
    named = set()
    for page in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")]:
        for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.Import):
                    named |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    named.add(node.module)
    ours = {name for name in named if name and name.startswith("rnnx")}
    assert {"rnnx", "rnnx.testing", "rnnx.sequences"} <= ours
    assert ours <= set(docs.MODULES)


def test_comments_of_headers_are_told_to_doxygen() -> None:
    text = docs.for_doxygen(HEADER)
    assert text.startswith("/** @file\n * A file. */\n/* -- Part -- */\n")
    both = "/** Both\n * of them. */\n"
    assert f"{both}int one(void);\n{both}int two(int a,\n        int b);\n\n" in text
    assert "    int field; /**< in it */\n" in text
    assert "    /** A method. */\n    void f()\n" in text
    assert "int x = 1; /* inside */\n        /* inside too */\n" in text
    assert "hidden_" not in text
    assert text.count("/**") == 6


def test_the_page_of_go_has_an_index_and_comments() -> None:
    page = docs.go_page(GO)
    assert "<p>Package p does it.</p>\n<pre>p.Do()</pre>\n" in page
    assert re.findall(r'<a href="#(.*?)"><code>(.*?)</code>', page) == [
        ("Do", "func Do[T any](x T) error"),
        ("S", "type S struct"),
        ("One", "const One"),
        ("S.Get", "func (s *S) Get() int"),
    ]
    assert "<p>Do does it: 1 &lt; 2.</p>\n<p>It may fail.</p>\n<pre>code()</pre>\n" in page
    assert "<pre>type S struct {\n\tA int\n\n\tB int\n}</pre>\n<p>S holds it.</p>\n" in page
    assert "<pre>const (\n\tOne S = iota\n\tTwo\n)</pre>\n" in page
