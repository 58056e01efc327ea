"""Files that only other machines run: the compose file and the workflows."""

import pathlib
import re
import shutil
import tempfile

import yaml
from common import CHART, ROOT, documents, find, helm_template, program, run, text

TRUST = 'git config --global --add safe.directory "$GITHUB_WORKSPACE"'


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


def workflows():
    """The jobs of each workflow, by its name."""
    for file in sorted((ROOT / ".github/workflows").glob("*.yml")):
        yield file.name, yaml.safe_load(file.read_text())["jobs"]


def uses_git(command):
    """Whether a step runs git, itself, by a script of the project or by cargo's build script."""
    scripts = re.findall(r"\b(?:tests|deploy)/[\w./-]+", command)
    called = [text(script) for script in scripts if (ROOT / script).is_file()]
    return any(re.search(r"\bgit\b", content) for content in [command, *called]) or (
        "cargo " in command
    )


def jobs_in_containers_trust_their_workspace():
    """Story: root in a container ran git in a workspace of the runner's user. git refused it, as
    actions/checkout trusts the folder for its own commands only."""
    found = 0
    for workflow, jobs in workflows():
        for name, job in jobs.items():
            if "container" not in job:
                continue
            found += 1
            commands = [step["run"] for step in job["steps"] if "run" in step]
            first = next((number for number, run in enumerate(commands) if uses_git(run)), None)
            if first is not None and TRUST not in commands[first]:
                yield f"{workflow}, {name}: {commands[first]!r} runs git before {TRUST!r}"
    if not found:
        yield "no job has a container"


def needed_by(jobs, name):
    """The jobs that have to succeed before one runs."""
    needs = jobs[name].get("needs", [])
    needs = [needs] if isinstance(needs, str) else needs
    return set(needs).union(*(needed_by(jobs, other) for other in needs))


def release_has_the_version_of_its_tag():
    """Every job waits for the comparison, which finds each file with another version."""
    jobs = dict(workflows())["release.yml"]
    for name in jobs:
        if name != "version" and "version" not in needed_by(jobs, name):
            yield f"{name} does not wait for the comparison of the tag"
    version = re.search(r'^version = "(.*)"', text("Cargo.toml"), re.M).group(1)
    versioned = ["Cargo.toml", "deploy/charts/stopover/Chart.yaml", "trino-plugin/pom.xml"]
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for path in [*versioned, "deploy/packages/check-tag"]:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, root / path)
        check = root / "deploy/packages/check-tag"
        code, _, error = run(check, f"v{version}")
        if code != 0:
            yield f"v{version} is refused: {error}"
        for tag in [version, f"v{version}.1", "v"]:
            if run(check, tag)[0] == 0:
                yield f"the tag {tag} is accepted"
        for path in versioned:
            before = (root / path).read_text()
            (root / path).write_text(before.replace(version, "9.8.7", 1))
            code, _, error = run(check, f"v{version}")
            if code == 0 or path not in error:
                yield f"{path} has another version, and the tag is accepted: {error}"
            (root / path).write_text(before)


def released_chart_names_the_image_that_is_pushed():
    """Story: the chart of a release named an image without a registry."""
    workflow = yaml.safe_load(text(".github/workflows/release.yml"))
    pushed = workflow["jobs"]["manifest"]["strategy"]["matrix"]["image"]
    registry = "registry.example/some/project"
    with tempfile.TemporaryDirectory() as folder:
        code, out, error = run(ROOT / "deploy/packages/build-chart", registry, folder)
        if code != 0:
            yield f"build-chart: {out}{error}"
            return
        (chart,) = pathlib.Path(folder).glob("stopover-*.tgz")
        values = [CHART / "ci/tokens-values.yaml"]
        objects = documents(helm_template(chart, values, "--kube-version", "1.33"))
    pod = find(objects, "StatefulSet")["spec"]["template"]["spec"]
    name, _, tag = pod["containers"][0]["image"].rpartition(":")
    version = re.search(r'^version = "(.*)"', text("Cargo.toml"), re.M).group(1)
    if tag != version or name not in [f"{registry}/{image}" for image in pushed]:
        yield f"it runs {name}:{tag}; {pushed} are pushed with the tag {version}"
