"""Build the files of a release: scripts/release [LANGUAGE ...]."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from commands import call
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from rnnx import __version__ as version

ROOT = Path(__file__).resolve().parents[1]
RUNTIMES = ROOT / "runtimes"
# What is built in a runtime's folder, and is no part of it.
BUILT = shutil.ignore_patterns("build", "target", "node_modules", "types", "*.tgz", "Cargo.lock")


def main(languages: list[str]) -> int:
    """Build the files of some languages, or of all, and put them in the place of dist/."""
    unknown = [name for name in languages if name not in BUILDERS]
    if unknown:
        known = ", ".join(BUILDERS)
        print(f"release: expected languages of {known}; found {', '.join(unknown)}; fix: name these")
        return 2
    check_changelog()
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as name:
        made, place = Path(name) / "dist", Path(name) / "work"
        made.mkdir()
        for language in languages or BUILDERS:
            print(f"building {language}", file=sys.stderr)
            work = place / language
            work.mkdir(parents=True)
            BUILDERS[language](work, made)
        write_materials(made)
        write_sums(made)
        shutil.rmtree(ROOT / "dist", ignore_errors=True)
        made.rename(ROOT / "dist")
    for path in sorted((ROOT / "dist").iterdir()):
        print(f"{path.stat().st_size:>10,} dist/{path.name}")
    return 0


def check_changelog() -> None:
    """Stop if CHANGELOG.md has no section of this version."""
    if not re.search(rf"^## {re.escape(version)}\b", read("CHANGELOG.md"), re.MULTILINE):
        sys.exit(f"release: expected '## {version}' in CHANGELOG.md; found none; fix: say what it brings")


def python(work: Path, made: Path) -> None:
    """An sdist, and a wheel that is made from it, which shows that the sdist is complete."""
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", made, ROOT, cwd=work)


def c_and_cpp(work: Path, made: Path) -> None:
    """What `cmake --install` puts somewhere: static libraries, headers, a CMake package of C and C++."""
    headers = call(ROOT / "scripts" / "onnxruntime_headers", cwd=ROOT).strip()
    name = f"rnnx-c-{version}-{os.uname().sysname.lower()}-{os.uname().machine}"
    for language in ("c", "cpp"):
        built = work / f"build-{language}"
        flags = [f"-DONNXRUNTIME_INCLUDE_DIR={headers}", "-DRNNX_TESTS=OFF", "-DCMAKE_BUILD_TYPE=Release"]
        call("cmake", "-S", RUNTIMES / language, "-B", built, *flags, cwd=work)
        call("cmake", "--build", built, cwd=work)
        call("cmake", "--install", built, "--prefix", work / name, cwd=work)
    for language in ("c", "cpp"):
        notes = work / name / "share" / "doc" / ("rnnx" if language == "c" else "rnnx-cpp")
        notes.mkdir(parents=True)
        for file in ("LICENSE", "README.md"):
            shutil.copyfile(RUNTIMES / language / file, notes / file)
    call("tar", "-czf", made / f"{name}.tar.gz", name, cwd=work)


def rust(work: Path, made: Path) -> None:
    """A crate; that it builds is shown by whoever installs it."""
    folder = shutil.copytree(RUNTIMES / "rust", work / "rust", ignore=BUILT)
    flags = ["--quiet", "--no-verify", "--allow-dirty", "--target-dir", work / "target"]
    call("cargo", "package", *flags, cwd=folder)
    shutil.copy(work / "target" / "package" / f"rnnx-{version}.crate", made)


def go(work: Path, made: Path) -> None:
    """A module archive, as a proxy serves one: every file below rnnx@vVERSION/."""
    folder = shutil.copytree(RUNTIMES / "go", work / "go", ignore=BUILT)
    with zipfile.ZipFile(made / f"rnnx-go-{version}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            inside = path.relative_to(folder).as_posix()
            if not inside.startswith("template/"):  # a module of its own
                archive.write(path, f"rnnx@v{version}/{inside}")


def node(work: Path, made: Path) -> None:
    """An npm package, its declarations made from the sources."""
    folder = shutil.copytree(RUNTIMES / "node", work / "node", ignore=BUILT)
    flags = ["--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]
    call("npm", "install", *flags, cwd=folder)
    call("npm", "pack", "--silent", "--pack-destination", made, cwd=folder)
    (made / f"rnnx-{version}.tgz").rename(made / f"rnnx-npm-{version}.tgz")


def java(work: Path, made: Path) -> None:
    """A jar, its sources, its pages, and the POM that names what it needs."""
    folder = shutil.copytree(RUNTIMES / "java", work / "java", ignore=BUILT)
    source = "org.apache.maven.plugins:maven-source-plugin:3.3.1:jar-no-fork"
    pages = "org.apache.maven.plugins:maven-javadoc-plugin:3.11.2:jar"
    call("mvn", "-q", "-B", "-DskipTests", "package", source, pages, cwd=folder)
    for kind in ("", "-sources", "-javadoc"):
        shutil.copyfile(folder / "target" / f"rnnx{kind}.jar", made / f"rnnx-{version}{kind}.jar")
    shutil.copyfile(folder / "pom.xml", made / f"rnnx-{version}.pom")


BUILDERS: dict[str, Callable[[Path, Path], None]] = {
    "python": python,
    "c": c_and_cpp,
    "rust": rust,
    "go": go,
    "node": node,
    "java": java,
}


def write_materials(made: Path) -> None:
    """Write sbom.cdx.json: the files, and what they bring when they are installed."""
    bom = Bom()
    root = Component(name="rnnx", version=version, type=ComponentType.LIBRARY, bom_ref="rnnx")
    bom.metadata.component = root
    needed = [
        Component(name=name, version=exact, purl=purl(kind, name, exact), bom_ref=f"{kind}/{name}")
        for kind, name, exact in dependencies()
    ]
    files = [
        Component(
            name=path.name,
            version=version,
            type=ComponentType.FILE,
            bom_ref=f"file/{path.name}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256(path))],
        )
        for path in sorted(made.iterdir())
    ]
    for component in (*files, *needed):
        bom.components.add(component)
    bom.register_dependency(root, needed)
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)
    (made / "sbom.cdx.json").write_text(text + "\n", encoding="utf-8")


def dependencies() -> Iterator[tuple[str, str, str]]:
    """Yield (kind of package, name, version) of everything that an installed file brings along."""
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", read("constraints.txt"), re.MULTILINE))
    for requirement in tomllib.loads(read("pyproject.toml"))["project"]["dependencies"]:
        name = re.split(r"[<>=!~ \[]", requirement, maxsplit=1)[0]
        yield "pypi", name, pins[name]
    for name, wanted in tomllib.loads(read("runtimes/rust/Cargo.toml"))["dependencies"].items():
        yield "cargo", name, (wanted if isinstance(wanted, str) else wanted["version"]).removeprefix("=")
    for name, exact in re.findall(r"^require (\S+) (\S+)$", read("runtimes/go/go.mod"), re.MULTILINE):
        yield "golang", name, exact
    space = "{http://maven.apache.org/POM/4.0.0}"
    for found in ElementTree.fromstring(read("runtimes/java/pom.xml")).iter(f"{space}dependency"):
        if found.find(f"{space}scope") is None:
            fields = (found.findtext(f"{space}{tag}", "") for tag in ("groupId", "artifactId", "version"))
            group, name, exact = fields
            yield "maven", f"{group}:{name}", exact


def purl(kind: str, name: str, exact: str) -> PackageURL:
    """Return the name of a package in every ecosystem's own form."""
    space, _, last = name.replace(":", "/").rpartition("/")
    return PackageURL(kind, space or None, last, exact)


def read(path: str) -> str:
    """Return a file of the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def sha256(path: Path) -> str:
    """Return the digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_sums(made: Path) -> None:
    """Write SHA256SUMS, which `sha256sum -c` takes."""
    lines = [f"{sha256(path)}  {path.name}\n" for path in sorted(made.iterdir())]
    (made / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
