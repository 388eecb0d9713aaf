"""Build the documentation as a site: scripts/docs [LANGUAGE ...]."""

from __future__ import annotations

import contextlib
import html
import importlib
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from commands import call
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "site"
RUNTIMES = ROOT / "runtimes"
LINES = re.compile(r"\d+(-\d+)?")
MODULES = ("rnnx", "rnnx_export", "rnnx_native", "rnnx_models")
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<link rel="stylesheet" href="{up}style.css">
<nav><a href="{up}index.html">rnnx</a> · <a href="{up}api.html">API</a></nav>
<main>
{body}
</main>
</html>
"""
STYLE = """:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 17px/1.55 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 52rem; }
nav { border-bottom: 1px solid var(--line); padding-bottom: .5rem; }
pre { background: var(--soft); padding: .8rem; overflow-x: auto; border-radius: 6px; }
code, pre { font: 14px/1.5 ui-monospace, monospace; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top; }
img { max-width: 100%; }
"""


def main(languages: list[str]) -> int:
    """Build the guides and the pages of some languages, or of all; 1 if a link leads nowhere."""
    unknown = [name for name in languages if name not in BUILDERS]
    if unknown:
        print(
            f"docs: expected languages of {', '.join(BUILDERS)}; found {', '.join(unknown)}; fix: name these"
        )
        return 2
    shutil.rmtree(SITE, ignore_errors=True)
    SITE.mkdir(parents=True)
    (SITE / "style.css").write_text(STYLE, encoding="utf-8")
    made = []
    for language in languages or BUILDERS:
        tool, build = BUILDERS[language]
        if shutil.which(tool) is None:
            print(f"{language}: not built: {tool} is not installed")
            continue
        build(SITE / "api" / language)
        made.append(language)
        print(f"{language}: build/site/api/{language}")
    write_guides(made)
    broken = list(broken_links(SITE))
    for page, link in broken:
        print(f"broken: {page.relative_to(SITE)} -> {link}")
    print(f"{sum(1 for _ in SITE.rglob('*.html'))} pages in build/site, {len(broken)} broken links")
    return 1 if broken else 0


# -- Guides


def write_guides(languages: list[str]) -> None:
    """Write README.md, docs/ and the pages of the runtimes as HTML; links between them go to HTML too."""
    sources = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
    sources += [path for path in sorted((ROOT / "docs").rglob("*")) if path.is_file()]
    sources += sorted(RUNTIMES.glob("*/README.md"))
    held = {path.resolve() for path in sources}
    for source in sources:
        target = SITE / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            target.with_suffix(".html").write_text(page_of(source, held), encoding="utf-8")
        else:
            shutil.copyfile(source, target)
    shutil.copyfile(SITE / "README.html", SITE / "index.html")
    rows = "".join(f'<li><a href="api/{name}/index.html">{name}</a></li>' for name in languages)
    body = f"<h1>API</h1><ul>{rows}</ul>"
    (SITE / "api.html").write_text(PAGE.format(title="API", up="", body=body), encoding="utf-8")


def page_of(source: Path, held: set[Path]) -> str:
    """Return a Markdown file as a page."""
    text = source.read_text(encoding="utf-8")
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    body = re.sub(
        r'(href|src)="([^"]*)"', lambda found: f'{found[1]}="{link_of(source, found[2], held)}"', body
    )
    body = re.sub(r"<h([1-4])>(.*?)</h\1>", lambda found: heading(found[1], found[2]), body)
    title = re.search(r"^# (.*)$", text, re.MULTILINE)
    up = "../" * len(source.relative_to(ROOT).parent.parts)
    return PAGE.format(title=html.escape(title[1] if title else source.stem), up=up, body=body)


def heading(level: str, text: str) -> str:
    """Return a heading that can be linked to, as the pages' own links name it."""
    plain = html.unescape(re.sub(r"<.*?>", "", text)).lower()
    name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
    return f'<h{level} id="{name}">{text}</h{level}>'


def link_of(source: Path, link: str, held: set[Path]) -> str:
    """Return a link of a page as one of the site; to what the site does not hold, as the name of the file."""
    parts = urlsplit(link)
    if parts.scheme or not parts.path:
        return link
    target = (source.parent / unquote(parts.path)).resolve()
    if target not in held and target.is_dir() and (target / "README.md") in held:
        target = target / "README.md"
    if target not in held:
        return "#" if target.exists() else link  # sources are no pages; what is not there is found as broken
    path = parts.path if parts.path.endswith(target.name) else f"{parts.path.rstrip('/')}/{target.name}"
    path = re.sub(r"\.md$", ".html", path)
    return f"{path}#{parts.fragment}" if parts.fragment else path


# -- APIs


def python(target: Path) -> None:
    """By pdoc. A package that loads its names when they are asked for has them all first."""
    import pdoc

    for name in MODULES:
        package = importlib.import_module(name)
        for shown in getattr(package, "__all__", ()):
            setattr(package, shown, getattr(package, shown))
    pdoc.render.configure(docformat="google")
    with contextlib.redirect_stderr(io.StringIO()):
        pdoc.pdoc(*MODULES, output_directory=target)


def rust(target: Path) -> None:
    folder = ROOT / "build" / "docs-rust"
    call("cargo", "doc", "--quiet", "--no-deps", "--lib", "--target-dir", folder, cwd=RUNTIMES / "rust")
    shutil.copytree(folder / "doc", target)
    (target / "index.html").write_text('<meta http-equiv="refresh" content="0; url=rnnx/index.html">\n')


def go(target: Path) -> None:
    """What `go doc` says of everything that is exported, as one page."""
    target.mkdir(parents=True)
    text = html.escape(call("go", "doc", "-all", ".", cwd=RUNTIMES / "go"))
    body = f"<h1>package rnnx</h1><pre>{text}</pre>"
    (target / "index.html").write_text(
        PAGE.format(title="rnnx for Go", up="../../", body=body), encoding="utf-8"
    )


def java(target: Path) -> None:
    folder = ROOT / "build" / "docs-java"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(RUNTIMES / "java", folder, ignore=shutil.ignore_patterns("target", "template"))
    plugin = "org.apache.maven.plugins:maven-javadoc-plugin:3.11.2:javadoc"
    call("mvn", "-q", "-B", "compile", plugin, cwd=folder)
    shutil.copytree(folder / "target" / "reports" / "apidocs", target)


def c_and_cpp(target: Path) -> None:
    """By Doxygen, which reads comments that begin with two stars: ours have one."""
    folder = ROOT / "build" / "docs-c"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for header in (RUNTIMES / "c" / "rnnx.h", RUNTIMES / "cpp" / "rnnx.hpp"):
        text = header.read_text(encoding="utf-8")
        text = re.sub(r"^/\*", r"/** @file\n *", text, count=1)
        text = re.sub(r"^  private:.*?^};", "};", text, flags=re.MULTILINE | re.DOTALL)
        text = re.sub(r"^( *)/\* (?!--)", r"\1/** ", text, flags=re.MULTILINE)
        text = re.sub(r"(\S[;,]? *)/\* ", r"\1/**< ", text)  # behind what it is about
        (folder / header.name).write_text(text, encoding="utf-8")
    settings = {
        "PROJECT_NAME": '"rnnx for C and C++"',
        "INPUT": ".",
        "OUTPUT_DIRECTORY": target.parent,
        "HTML_OUTPUT": target.name,
        "OPTIMIZE_OUTPUT_FOR_C": "YES",
        **dict.fromkeys(("EXTRACT_ALL", "JAVADOC_AUTOBRIEF", "QUIET"), "YES"),
        **dict.fromkeys(("GENERATE_LATEX", "WARNINGS", "HAVE_DOT", "FULL_PATH_NAMES"), "NO"),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{name} = {value}\n" for name, value in settings.items())
    done = subprocess.run(["doxygen", "-"], input=text, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"docs: doxygen failed:\n{done.stderr[-3000:]}")


def node(target: Path) -> None:
    """By TypeDoc, out of the declarations that are made from the comments."""
    folder = ROOT / "build" / "docs-node"
    shutil.copytree(
        RUNTIMES / "node", folder, ignore=shutil.ignore_patterns("node_modules", "types"), dirs_exist_ok=True
    )
    flags = ["--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]
    call("npm", "install", *flags, "typedoc@0.28.14", cwd=folder)
    words = [
        "--skipErrorChecking",
        "--logLevel",
        "Error",
        "--readme",
        "none",
        "--name",
        "rnnx for JavaScript",
    ]
    call("npx", "typedoc", *words, "--out", target, "src/node.js", cwd=folder)


BUILDERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "python": ("python", python),
    "c": ("doxygen", c_and_cpp),
    "rust": ("cargo", rust),
    "go": ("go", go),
    "java": ("mvn", java),
    "node": ("npm", node),
}


# -- Links


class Links(HTMLParser):
    """Collects what a page links to, and the places in it that can be linked to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = {"", "top"}
        self.feed(page.read_text(encoding="utf-8", errors="replace"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at a tag."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.places.add(value)
            if name in ("href", "src") and value and tag in ("a", "img", "link", "script"):
                self.links.append(value)


def broken_links(site: Path) -> Iterator[tuple[Path, str]]:
    """Yield each link between pages that leads to no file, or to no place in it."""
    pages = {path.resolve(): Links(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target = target / "index.html"
            places = pages[target].places if target in pages else None
            named = {parts.fragment, unquote(parts.fragment)}
            if LINES.fullmatch(parts.fragment):  # of a source: marked by a script
                named = {""}
            if not target.exists() or (places is not None and not named & places):
                yield path, link


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
