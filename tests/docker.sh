#!/usr/bin/env bash
# Builds the image of the Dockerfile without Docker and checks that it works: version, user, health.
#
# Needs root, buildah and debootstrap (Debian packages) and the Rust toolchain of this machine;
# takes some minutes. The base images are made by debootstrap under the names in the Dockerfile, so
# no image registry is needed. Everything is in one temporary folder, which is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in buildah debootstrap rustc; do
    if ! command -v "$tool" >/dev/null; then
        echo "docker.sh: $tool is missing (as root: apt-get install buildah debootstrap)" >&2
        exit 2
    fi
done
if [ "$(id -u)" != 0 ]; then
    echo "docker.sh: debootstrap and chroot need root" >&2
    exit 2
fi

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

# Images that are made here do not have the digests of the real ones.
sed 's/@sha256:[0-9a-f]*//' Dockerfile >"$scratch/Dockerfile"
# Read from the Dockerfile, so that a change there needs no change here.
mapfile -t names < <(sed -n 's/^FROM \([^ ]*\).*/\1/p' "$scratch/Dockerfile")

debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev "$suite" "$scratch/rust" \
    >"$scratch/debootstrap.log" 2>&1 || { tail "$scratch/debootstrap.log"; exit 1; }
sysroot=$(rustc --print sysroot)
cp -r "$sysroot/bin" "$sysroot/lib" "$scratch/rust/usr/local/"
# This machine may trust more certificates than Debian, for example those of a proxy.
cp -L /etc/ssl/certs/ca-certificates.crt "$scratch/rust/etc/ssl/certs/ca-certificates.crt"
base_image "$scratch/rust" "${names[0]}"

debootstrap --variant=minbase "$suite" "$scratch/slim" \
    >"$scratch/debootstrap.log" 2>&1 || { tail "$scratch/debootstrap.log"; exit 1; }
rm -rf "$scratch"/slim/var/cache/apt/* "$scratch"/slim/var/lib/apt/lists/*
base_image "$scratch/slim" "${names[1]}"

buildah bud --isolation chroot --pull-never --format docker --tag stopover \
    --file "$scratch/Dockerfile" .

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

echo "docker.sh: $version runs as user $user, is healthy and ready; the binary has $size bytes"
