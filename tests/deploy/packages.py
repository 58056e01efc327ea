"""The Debian package, the systemd unit, and the image that carries the plugin."""

import os
import pathlib
import re
import shutil
import tempfile

from common import ROOT, program, run

# What `systemd-analyze security` calls "OK"; in tenths. The unit has 1.2.
MOST_EXPOSURE = 15


def debian_package_is_complete():
    if not shutil.which("dpkg-deb"):
        yield "dpkg-deb is missing: install dpkg"
        return
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "DEB_COMPRESSION": "none"}
        code, out, error = run(
            ROOT / "deploy/packages/build-deb", program("STOPOVER_BINARY"), folder, env=environment
        )
        if code != 0:
            yield f"build-deb: {error}"
            return
        package, root = out.strip(), f"{folder}/root"
        control = run("dpkg-deb", "--field", package)[1]
        if not re.search(r"^Depends: libc6 \(>= 2\.\d+\)$", control, re.M):
            yield f"no dependency on the C library: {control}"
        if run("dpkg-deb", "--extract", package, root)[0] != 0:
            yield "it cannot be extracted"
        listed = run("dpkg-deb", "--contents", package)[1]
        if not all(" root/root " in line for line in listed.splitlines()):
            yield f"files of others than root: {listed}"
        yield from unit_problems(root)
        yield from help_problems(pathlib.Path(root))
        # As the unit runs it, in a folder of its own.
        state = pathlib.Path(root, "var/lib/stopover")
        state.mkdir(parents=True)
        arguments = ["check", "--config", f"{root}/etc/stopover/stopover.toml"]
        code, out, error = run(f"{root}/usr/bin/stopover", *arguments, cwd=state, env={})
        if "base directories" not in out:
            yield f"its configuration is not accepted: {out}{error}"


def help_problems(root):
    """What is missing of completions and manual pages below a root folder."""
    for path, part in [
        ("bash-completion/completions/stopover", "complete -F"),
        ("zsh/vendor-completions/_stopover", "#compdef stopover"),
        ("fish/vendor_completions.d/stopover.fish", "complete -c stopover"),
    ]:
        file = root / "usr/share" / path
        if not file.exists() or part not in file.read_text():
            yield f"{path} is missing or not a completion"
    pages = {page.name for page in (root / "usr/share/man/man1").glob("*")}
    for command in ["", "-serve", "-exchanges", "-inspect"]:
        if f"stopover{command}.1.gz" not in pages:
            yield f"the manual page of stopover{command} is missing: {sorted(pages)}"


def unit_problems(root):
    """What systemd says of the unit below a root folder."""
    unit = f"{root}/usr/lib/systemd/system/stopover.service"
    text = pathlib.Path(unit).read_text()
    started = re.search(r"^ExecStart=(\S+)", text, re.M).group(1)
    if not pathlib.Path(root + started).exists():
        yield f"the package lacks {started}"
    for wanted in ["Type=notify", "UMask=0077"]:
        if wanted not in text.splitlines():
            yield f"the unit lacks {wanted}"
    if "\nExecStartPre=" in text:
        yield "what runs before the daemon can keep it down"
    drain = re.search(r"server.drain_timeout \((\d+)s\)", text).group(1)
    if int(re.search(r"^TimeoutStopSec=(\d+)", text, re.M).group(1)) < int(drain) + 10:
        yield "systemd kills the daemon before its drain ends"
    if not shutil.which("systemd-analyze"):
        return
    local = pathlib.Path(root, "stopover.service")
    local.write_text(text.replace(f"ExecStart={started}", f"ExecStart={root}{started}"))
    code, out, error = run("systemd-analyze", "verify", "--man=no", local)
    complaints = [line for line in (out + error).splitlines() if "stopover.service" in line]
    if complaints:
        yield f"systemd-analyze verify: {complaints}"
    code, out, error = run(
        "systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", local
    )
    if code != 0:
        yield f"systemd-analyze security: {(out + error).splitlines()[-1]}"


def plugin_is_copied_and_replaced():
    script = ROOT / "deploy/images/copy-plugin"
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder, "plugin"), pathlib.Path(folder, "volume")
        source.mkdir()
        target.mkdir()
        environment = {**os.environ, "STOPOVER_PLUGIN": str(source)}
        for version in ["1", "2"]:
            shutil.rmtree(source)
            source.mkdir()
            (source / f"stopover-{version}.jar").write_text(version)
            code, out, error = run("sh", script, target, env=environment)
            found = sorted(file.name for file in target.iterdir())
            if code != 0 or found != [f"stopover-{version}.jar"]:
                yield f"version {version}: {found} {out}{error}"
        code, _, error = run("sh", script, f"{folder}/missing", env=environment)
        if code == 0 or "mount a volume there" not in error:
            yield "a missing volume is not reported"
