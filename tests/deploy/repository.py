"""Files that only other machines run: the compose file and the workflows."""

import pathlib
import re
import tempfile

import yaml
from common import ROOT, program, run, text


def compose_names_existing_files():
    folder = ROOT / "deploy/compose"
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    services = compose["services"]
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source, _, target = volume.partition(":")
            if source.startswith(".") and not (folder / source).exists():
                yield f"{name} mounts {source}, which does not exist"
            if not source.startswith(".") and source not in compose.get("volumes", {}):
                yield f"{name} mounts the volume {source}, which is not declared"
            if not target.startswith("/"):
                yield f"{name} mounts {source} at {target}"
        build = service.get("build")
        if (
            build
            and not (folder / build["context"] / build.get("dockerfile", "Dockerfile")).exists()
        ):
            yield f"{name} is built from a file that does not exist"
        if not build and not re.search(r":[\w.-]+$", service["image"]):
            yield f"{name}: the image {service['image']} has no version"
        for other in service.get("depends_on", {}):
            if other not in services:
                yield f"{name} depends on {other}, which does not exist"


def compose_files_agree():
    folder = ROOT / "deploy/compose"
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    daemons = {name for name in services if re.fullmatch(r"stopover-\d+", name)}
    code, out, error = run(
        program("PROMTOOL"), "check", "config", "--syntax-only", folder / "prometheus.yaml"
    )
    if code != 0:
        yield f"promtool: {out}{error}"
    named = set(re.findall(r'"(stopover-\d+):7077"', (folder / "prometheus.yaml").read_text()))
    if named != daemons:
        yield f"prometheus.yaml scrapes {named}, the daemons are {daemons}"
    for file in sorted((folder / "trino").glob("exchange-*.properties")):
        uris = re.findall(r"http://(stopover-\d+):7077", file.read_text())
        if set(uris) != daemons:
            yield f"{file.name} names {uris}, the daemons are {daemons}"
        if uris[0] != f"stopover-{file.stem.removeprefix('exchange-')}":
            yield f"{file.name} prefers {uris[0]}"
    for file in sorted((folder / "trino").glob("*.properties")):
        mounts = [v for s in services.values() for v in s.get("volumes", []) if file.name in v]
        if not mounts:
            yield f"no node mounts {file.name}"


def images_copy_existing_files():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    sent = [line.removeprefix("!") for line in lines if line.startswith("!")]
    for file in ["Dockerfile", *images()]:
        for line in re.findall(r"^COPY (.*)$", text(file), re.M):
            words = line.split()
            if any(word.startswith("--from=") for word in words):
                continue
            for source in [word for word in words if not word.startswith("--")][:-1]:
                if not (ROOT / source).exists():
                    yield f"{file} copies {source}, which does not exist"
                if not any(
                    source == allowed or source.startswith(f"{allowed}/") for allowed in sent
                ):
                    yield f"{file} copies {source}, which .dockerignore keeps back"


def base_images_are_named_by_digest():
    named = r"^(?:FROM(?: --platform=\S+)?| *image:) +(docker\.io/\S+)"
    found = 0
    for name in ["Dockerfile", "deploy/compose/compose.yaml", *images()]:
        content = text(name)
        for argument, value in re.findall(r"^ARG (\w+)=(\S+)", content, re.M):
            content = content.replace("${" + argument + "}", value)
        for image in re.findall(named, content, re.M):
            found += 1
            if not re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", image):
                yield f"{name}: {image} is not named by tag and digest"
    if found < 8:
        yield f"only {found} images were found"


def images():
    """The Dockerfiles in deploy/."""
    return [str(path.relative_to(ROOT)) for path in (ROOT / "deploy/images").glob("*.Dockerfile")]


def site_is_complete():
    with tempfile.TemporaryDirectory() as folder:
        code, _, error = run(ROOT / "deploy/site/prepare", folder)
        if code != 0:
            yield f"prepare: {error}"
            return
        source = pathlib.Path(folder, "src")
        contents = (source / "SUMMARY.md").read_text()
        listed = {source / page for page in re.findall(r"\]\(([^)]+)\)", contents)}
        for page in sorted(source.rglob("*.md")):
            if page.name != "SUMMARY.md" and page not in listed:
                yield f"{page.relative_to(source)} is not in the table of contents"
            for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
                # What mdBook makes of a README.
                file = re.sub(r"\bindex\.md$", "README.md", target)
                if not re.match(r"https?:", target) and not (page.parent / file).exists():
                    yield f"{page.relative_to(source)} links to {target}, which the site lacks"


def workflows_are_valid():
    files = sorted((ROOT / ".github/workflows").glob("*.yml"))
    code, out, error = run(program("ACTIONLINT"), "-no-color", *files)
    if code != 0:
        yield f"actionlint: {out}{error}"
