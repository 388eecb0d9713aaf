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
import textwrap
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from commands import call
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "site"
RUNTIMES = ROOT / "runtimes"
GO_DECLARATION = re.compile(r"(?:func (?:\(\w+ \*?(\w+)[^)]*\) )?|type |const |var )(?:\(\s*)?(\w+)")
PROTOTYPE = r"\b\w[^{};/#]*;\n"
SOURCE_LINES = re.compile(r"\d+(-\d+)?")
# What a program imports; the rest of each package is its own affair.
MODULES = (
    "rnnx",
    "rnnx.audio",
    "rnnx.sequences",
    "rnnx.testing",
    "rnnx.scaffold",
    "rnnx.tolerance",
    "rnnx.bench.measure",
    "rnnx.engines.ort_options",
    "rnnx.formats.array_files",
    "rnnx.formats.snapshot",
    "rnnx.formats.sound_file",
    "rnnx.formats.trace_file",
    "rnnx.model.contract",
    "rnnx.model.inspection",
    "rnnx.parity.check",
    "rnnx.parity.record_trace",
    "rnnx.parity.reference",
    "rnnx.parity.report",
    "rnnx.parity.verdict",
    "rnnx.text.generation",
    "rnnx.text.sampling",
    "rnnx.text.vocabulary",
    "rnnx_export.api",
    "rnnx_export.explain",
    "rnnx_export.module.structure",
    "rnnx_models.batches",
    "rnnx_models.checkpoint",
    "rnnx_models.networks",
    "rnnx_models.text",
    "rnnx_models.training",
    "rnnx_native.compile",
)
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
    sources = [*ROOT.glob("*.md"), ROOT / "LICENSE"]
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
        r'<a href="([^"]*)">(.*?)</a>',
        lambda found: anchor(link_of(source, found[1], held), found[2]),
        body,
        flags=re.DOTALL,
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


def anchor(link: str | None, text: str) -> str:
    """Return text with its link, or alone."""
    return text if link is None else f'<a href="{link}">{text}</a>'


def link_of(source: Path, link: str, held: set[Path]) -> str | None:
    """Return a link of a page as one of the site, None for a file of the repository that is no page."""
    parts = urlsplit(link)
    if parts.scheme or not parts.path:
        return link
    target = (source.parent / unquote(parts.path)).resolve()
    if target not in held and target.is_dir() and (target / "README.md") in held:
        target = target / "README.md"
    if target not in held:
        return None if target.is_relative_to(ROOT) and target.exists() else link  # `link` is found as broken
    path = parts.path if parts.path.endswith(target.name) else f"{parts.path.rstrip('/')}/{target.name}"
    path = re.sub(r"\.md$", ".html", path)
    return f"{path}#{parts.fragment}" if parts.fragment else path


# -- APIs


def write_api(target: Path, title: str, body: str) -> None:
    """Write the first page of a language."""
    page = PAGE.format(title=title, up="../../", body=f"<h1>{title}</h1>\n{body}")
    (target / "index.html").write_text(page, encoding="utf-8")


def python(target: Path) -> None:
    """By pdoc, which is given all names of a package that loads them when they are asked for."""
    import pdoc

    for name in MODULES:
        package = importlib.import_module(name)
        for shown in getattr(package, "__all__", ()):
            setattr(package, shown, getattr(package, shown))
    pdoc.render.configure(docformat="google")
    with contextlib.redirect_stderr(io.StringIO()):
        pdoc.pdoc(*MODULES, output_directory=target)
    for made in target.rglob("*.html"):  # a private base class has no place to link to
        text = re.sub(r'<a href="[^"]*#_\w+">(.*?)</a>', r"\1", made.read_text(encoding="utf-8"))
        made.write_text(text, encoding="utf-8")
    rows = ""
    for name in MODULES:
        page = name.replace(".", "/") + ".html"
        summary = MarkdownIt().renderInline((importlib.import_module(name).__doc__ or "").splitlines()[0])
        rows += f'<tr><td><a href="{page}">{name}</a></td><td>{summary}</td></tr>\n'
    write_api(target, "rnnx for Python", f"<table>\n{rows}</table>")


def rust(target: Path) -> None:
    folder = ROOT / "build" / "docs-rust"
    call("cargo", "doc", "--quiet", "--no-deps", "--lib", "--target-dir", folder, cwd=RUNTIMES / "rust")
    shutil.copytree(folder / "doc", target)
    (target / "index.html").write_text('<meta http-equiv="refresh" content="0; url=rnnx/index.html">\n')


def go(target: Path) -> None:
    """What `go doc` says of everything that is exported, with an index."""
    target.mkdir(parents=True)
    write_api(target, "rnnx for Go", go_page(call("go", "doc", "-all", ".", cwd=RUNTIMES / "go")))


def go_page(text: str) -> str:
    """Return the text of `go doc -all` as HTML. Declarations begin a line; their comments are indented."""
    about, *parts = re.split(r"^(?=(?:func|type|const|var) |[A-Z]+$)", text, flags=re.MULTILINE)
    index, body = "", ""
    for part in parts:
        found = GO_DECLARATION.match(part)
        if not found:  # CONSTANTS, FUNCTIONS, TYPES
            body += f"<h2>{part.strip().capitalize()}</h2>\n"
            continue
        name = ".".join(filter(None, found.groups()))
        declared, _, said = part.partition("\n    ")
        title = re.sub(r" \{$| \($", "", declared.splitlines()[0])
        title = f"{title} {name}" if title in ("const", "var") else title
        index += f'<li><a href="#{name}"><code>{html.escape(title)}</code></a></li>\n'
        body += f'<h3 id="{name}">{name}</h3>\n<pre>{html.escape(declared.strip())}</pre>\n{go_comment(said)}'
    _, _, said = about.partition("\n\n")
    return f"{go_comment(textwrap.indent(said, '    '))}<h2>Index</h2>\n<ul>\n{index}</ul>\n{body}"


def go_comment(text: str) -> str:
    """Return a comment of Go as paragraphs, and as code what is indented in it."""
    blocks = re.split(r"\n\n+", re.sub(r"^ {4}", "", text, flags=re.MULTILINE).strip("\n"))
    kinds = {True: "<pre>{}</pre>\n", False: "<p>{}</p>\n"}
    return "".join(
        kinds[block.startswith("    ")].format(html.escape(textwrap.dedent(block)))
        for block in blocks
        if block
    )


def java(target: Path) -> None:
    folder = ROOT / "build" / "docs-java"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(RUNTIMES / "java", folder, ignore=shutil.ignore_patterns("target", "template"))
    plugin = "org.apache.maven.plugins:maven-javadoc-plugin:3.11.2:javadoc"
    call("mvn", "-q", "-B", "compile", plugin, cwd=folder)
    shutil.copytree(folder / "target" / "reports" / "apidocs", target)


def c_and_cpp(target: Path) -> None:
    """By Doxygen, out of headers whose comments are in its form."""
    folder = ROOT / "build" / "docs-c"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for header in (RUNTIMES / "c" / "rnnx.h", RUNTIMES / "cpp" / "rnnx.hpp"):
        (folder / header.name).write_text(for_doxygen(header.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "main.dox").write_text(
        "/** @mainpage rnnx for C and C++\n * - C: rnnx.h\n * - C++17: rnnx.hpp\n */\n", encoding="utf-8"
    )
    settings = {
        "PROJECT_NAME": "rnnx",
        "INPUT": ".",
        "OUTPUT_DIRECTORY": target.parent,
        "HTML_OUTPUT": target.name,
        "EXCLUDE_SYMBOLS": "rnnx::detail",
        "OPTIMIZE_OUTPUT_FOR_C": "YES",
        **dict.fromkeys(("EXTRACT_ALL", "JAVADOC_AUTOBRIEF", "QUIET"), "YES"),
        **dict.fromkeys(("GENERATE_LATEX", "WARNINGS", "HAVE_DOT", "FULL_PATH_NAMES"), "NO"),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{name} = {value}\n" for name, value in settings.items())
    done = subprocess.run(["doxygen", "-"], input=text, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"docs: doxygen failed:\n{done.stderr[-3000:]}")


def for_doxygen(header: str) -> str:
    """Return a header with two stars at each comment, which Doxygen reads, but not at those inside functions.

    A comment above several declarations is about each of them; one behind code is about that code.
    """
    text = re.sub(r"^/\*", r"/** @file\n *", header, count=1)
    text = re.sub(r"^  private:.*?^};", "};", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^( {0,4})/\* (?!--)", r"\1/** ", text, flags=re.MULTILINE)
    text = re.sub(r"^( {0,4}[^\s/].*?) +/\* ", r"\1 /**< ", text, flags=re.MULTILINE)
    several = re.compile(rf"^(/\*\* (?:(?!\*/).)*\*/\n)((?:{PROTOTYPE}){{2,}})", re.MULTILINE | re.DOTALL)
    return several.sub(lambda found: re.sub(PROTOTYPE, lambda one: found[1] + one[0], found[2]), text)


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
    call("npx", "typedoc", *words, "--out", target, "src/node.js", "src/web.js", cwd=folder)


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
        found = {name: value for name, value in attrs if value}
        self.places |= {
            found[name] for name in ("id", "name") if name in found and (name, tag) != ("name", "meta")
        }
        self.links += [found[name] for name in ("href", "src") if name in found and tag != "base"]
        if tag == "meta" and found.get("http-equiv") == "refresh":
            self.links.append(found["content"].partition("url=")[2])


def broken_links(site: Path) -> Iterator[tuple[Path, str]]:
    """Yield each link between pages that leads to no file of the site, or to no place in it."""
    site = site.resolve()
    pages = {path: Links(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target = target / "index.html"
            if not target.is_relative_to(site) or not target.exists():
                yield path, link
                continue
            if target not in pages or {parts.fragment, unquote(parts.fragment)} & pages[target].places:
                continue
            if "src" not in target.parts or not SOURCE_LINES.fullmatch(parts.fragment):  # a script's places
                yield path, link


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
