#!/usr/bin/env bash
# Builds the three images without Docker and checks that they work: the daemon's (version, user,
# health), the plugin's (copies the plugin), and Trino's with the plugin (contains the same files).
#
# Needs root, buildah and debootstrap (Debian packages), the Rust toolchain, a JDK and the Maven of
# this machine; takes some minutes. The base images are made by debootstrap under the names in the
# Dockerfiles, so no image registry is needed; that of Trino is an empty folder for plugins. Maven's
# repository is shared with the build. Everything else is in one temporary folder, which is removed
# at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in buildah debootstrap rustc mvn; do
    if ! command -v "$tool" >/dev/null; then
        echo "docker.sh: $tool is missing (as root: apt-get install buildah debootstrap maven)" >&2
        exit 2
    fi
done
if [ "$(id -u)" != 0 ]; then
    echo "docker.sh: debootstrap and chroot need root" >&2
    exit 2
fi

jdk=$(tests/lib/fetch.sh jdk)
maven=$(dirname "$(dirname "$(readlink -f "$(command -v mvn)")")")

scratch=$(mktemp -d)
suite=bookworm
buildah() {
    command buildah --root "$scratch/images" --runroot "$scratch/run" --storage-driver vfs "$@"
}
container=""
server=""
# Terminates the leaf processes below one: buildah does not forward signals to what it runs, and
# exits once that has exited.
end_below() {
    local child children
    children=$(pgrep -P "$1" || true)
    if [ -z "$children" ]; then kill "$1" 2>/dev/null || true; fi
    for child in $children; do end_below "$child"; done
}
finish() {
    if [ -n "$server" ]; then
        end_below "$server"
        wait "$server" 2>/dev/null || true
    fi
    if [ -n "$container" ]; then buildah rm "$container" >/dev/null 2>&1 || true; fi
    rm -rf --one-file-system "$scratch"
}
trap finish EXIT

base_image() { # FOLDER NAME
    local from
    from=$(buildah from scratch)
    buildah add --quiet "$from" "$1" / >/dev/null
    buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$from"
    buildah commit --quiet --rm "$from" "$2" >/dev/null
    rm -rf --one-file-system "$1"
    echo "base image $2"
}

debian() { # FOLDER [OPTION...]
    local folder=$1
    shift
    debootstrap --variant=minbase "$@" "$suite" "$folder" >"$scratch/debootstrap.log" 2>&1 ||
        { tail "$scratch/debootstrap.log"; exit 1; }
    rm -rf "$folder"/var/cache/apt/* "$folder"/var/lib/apt/lists/*
}
# local_file DOCKERFILE: one with base images of this script, which do not have the digests of the
# real ones, and for the only platform here. Sets `names` to them.
local_file() {
    file=$scratch/${1##*/}
    sed -e 's/@sha256:[0-9a-f]*//' -e 's/--platform=[^ ]* //' "$1" >"$file"
    # Read from the file, so that a change there needs no change here.
    mapfile -t names < <(sed -n 's/^FROM \([^ ]*\).*/\1/p' "$file")
}
bud() { # TAG [OPTION...]
    local tag=$1
    shift
    buildah bud --isolation chroot --pull-never --format docker --tag "$tag" --file "$file" "$@" .
}

# --- the daemon ------------------------------------------------------------------------------

local_file Dockerfile

debian "$scratch/rust" --include=ca-certificates,gcc,libc6-dev
sysroot=$(rustc --print sysroot)
cp -r "$sysroot/bin" "$sysroot/lib" "$scratch/rust/usr/local/"
# This machine may trust more certificates than Debian, for example those of a proxy.
cp -L /etc/ssl/certs/ca-certificates.crt "$scratch/rust/etc/ssl/certs/ca-certificates.crt"
base_image "$scratch/rust" "${names[0]}"

debian "$scratch/slim" --include=busybox-static
cp "$scratch/slim/bin/busybox" "$scratch/busybox.static"
base_image "$scratch/slim" "${names[1]}"

bud stopover

container=$(buildah from --pull-never stopover)
run() { buildah run --isolation chroot "$container" -- "$@"; }

version=$(run stopover --version)
expected="stopover $(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)"
[ "$version" = "$expected" ] ||
    { echo "docker.sh: version is $version, expected $expected" >&2; exit 1; }
user=$(run id -u)
[ "$user" != 0 ] || { echo "docker.sh: the image runs as root" >&2; exit 1; }
size=$(stat -c %s "$(buildah mount "$container")/usr/local/bin/stopover")

# The daemon chooses a free port and prints it.
run stopover serve --listen 127.0.0.1:0 >"$scratch/out" 2>"$scratch/log" &
server=$!
for _ in $(seq 100); do
    if grep -q '^listening on ' "$scratch/out"; then break; fi
    kill -0 "$server" 2>/dev/null || { cat "$scratch/log" >&2; exit 1; }
    sleep 0.1
done
address=$(sed -n 's|^listening on http://||p' "$scratch/out")
run stopover health --address "$address"
run stopover health --ready --address "$address"
end_below "$server"
wait "$server" || { echo "docker.sh: the daemon did not exit with 0 on SIGTERM" >&2; exit 1; }
server=""
check=$(buildah inspect --type image --format '{{.Docker.Config.Healthcheck}}' stopover)
case "$check" in
*health*) ;;
*) echo "docker.sh: the image has no health check" >&2; exit 1 ;;
esac

# --- the plugin ------------------------------------------------------------------------------

local_file deploy/images/plugin.Dockerfile
debian "$scratch/maven"
mkdir "$scratch/maven/opt/jdk" "$scratch/maven/opt/maven"
cp -rL "$jdk/." "$scratch/maven/opt/jdk"
cp -rL "$maven/." "$scratch/maven/opt/maven"
ln -s /opt/maven/bin/mvn "$scratch/maven/usr/local/bin/mvn"
ln -s /opt/jdk/bin/java "$scratch/maven/usr/local/bin/java"
base_image "$scratch/maven" "${names[0]}"

mkdir -p "$scratch"/busybox/{bin,tmp,usr/local/bin}
cp "$scratch/busybox.static" "$scratch/busybox/bin/busybox"
for applet in sh cp rm ls wc; do ln -s busybox "$scratch/busybox/bin/$applet"; done
base_image "$scratch/busybox" "${names[1]}"

mkdir -p "$HOME/.m2"
bud stopover-plugin --volume "$HOME/.m2:$HOME/.m2"

buildah rm "$container" >/dev/null
container=$(buildah from --pull-never stopover-plugin)
mkdir "$scratch/copied"
chown 10001:10001 "$scratch/copied"
# What an init container does, twice, as when its pod restarts.
for _ in 1 2; do
    buildah run --isolation chroot --volume "$scratch/copied:/plugin" "$container" -- \
        copy-plugin /plugin
done
find "$scratch/copied" -name 'trino-stopover-*.jar' | grep -q . ||
    { echo "docker.sh: the image of the plugin copies no plugin" >&2; exit 1; }

# --- Trino with the plugin -------------------------------------------------------------------

local_file deploy/images/trino.Dockerfile
trino=$(sed -n 's/^ARG TRINO=//p' "$file")
mkdir -p "$scratch/trino/usr/lib/trino/plugin/tpch"
base_image "$scratch/trino" "docker.io/trinodb/trino:$trino"
bud trino-with-stopover

buildah rm "$container" >/dev/null
container=$(buildah from --pull-never trino-with-stopover)
diff -r "$scratch/copied" "$(buildah mount "$container")/usr/lib/trino/plugin/stopover"
jars=$(find "$scratch/copied" -name '*.jar' | wc -l)

echo "docker.sh: the images of the plugin and of Trino with it have the same $jars jars"
echo "docker.sh: $version runs as user $user, is healthy and ready; the binary has $size bytes"
