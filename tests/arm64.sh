#!/usr/bin/env bash
# Builds the daemon for 64-bit ARM on a machine of another kind, and runs it there under QEMU:
# version, configuration, and the smoke test with two daemons.
#
# Needs rustup, a cross compiler for C and QEMU's user emulation (Debian packages, which root
# installs); takes some minutes for the dependencies. Does not: build the image or the package, which
# the release workflow does on machines of that architecture.

# shellcheck source=tests/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
cd "$ROOT"

TARGET=aarch64-unknown-linux-gnu
PACKAGES=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static)
# Where the cross compiler has the C library of the other architecture.
SYSROOT=/usr/aarch64-linux-gnu

if ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v qemu-aarch64-static >/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 ||
        die "aarch64-linux-gnu-gcc or qemu-aarch64-static is missing; on Debian: ${PACKAGES[*]}"
    say "installing ${PACKAGES[*]}"
    { apt-get update && apt-get install -y --no-install-recommends "${PACKAGES[@]}"; } >&2
fi
rustup target add "$TARGET"

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
cargo build --locked --target "$TARGET"

binary=${CARGO_TARGET_DIR:-$ROOT/target}/$TARGET/debug/stopover
readelf -h "$binary" | grep -q 'Machine: *AArch64' || die "$binary is not for 64-bit ARM"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# exec, so that the signals of the smoke test reach the daemon.
printf '#!/bin/sh\nexec qemu-aarch64-static -L %s %s "$@"\n' "$SYSROOT" "$binary" >"$work/stopover"
chmod +x "$work/stopover"

expected="stopover $(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)"
version=$("$work/stopover" --version)
[[ $version == "$expected"* ]] || die "the version is $version, expected $expected"
"$work/stopover" check --base-directory "$work/base"
STOPOVER_BINARY=$work/stopover bash tests/smoke.sh
say "$version for $(readelf -h "$binary" | sed -n 's/ *Machine: *//p') works under QEMU"
