#!/usr/bin/env bash
# Fetches what the tests need and the repository does not contain, and prints where it is.
#
#   tests/lib/fetch.sh jdk         the home of a JDK 25 or newer (searched for, never installed)
#   tests/lib/fetch.sh versitygw   the S3 server of the tests, built with Go
#   tests/lib/fetch.sh minio, fake-gcs-server  other servers of the tests, built with Go
#   tests/lib/fetch.sh azurite     the server of the tests for Azure, by npm
#   tests/lib/fetch.sh version NAME  the version of one of these servers, or of hadoop
#   tests/lib/fetch.sh helm, actionlint  the path of each, built with Go
#   tests/lib/fetch.sh prometheus, promtool  the path of each
#   tests/lib/fetch.sh grafana-check  the path of the checker of dashboards, built with Go
#   tests/lib/fetch.sh crds        the folder of the Prometheus operator's schemas
#   tests/lib/fetch.sh kubernetes-validate  the path of a validator with the schemas, by pip
#   tests/lib/fetch.sh trino       an unpacked Trino server (lib/ and two plugins), by Maven
#   tests/lib/fetch.sh trino-full  the same with the connectors that the tests use
#   tests/lib/fetch.sh hadoop      the folder of the jars of a small HDFS, by Maven
#   tests/lib/fetch.sh minikdc     the folder of the jars of a small KDC, by Maven
#   tests/lib/fetch.sh kinit       the path of what gets a ticket of Kerberos
#   tests/lib/fetch.sh postgresql  the path of an executable `postgres`
#   tests/lib/fetch.sh mariadb     the path of an executable `mariadbd`
#   tests/lib/fetch.sh cargo-fuzz  the folder of an executable cargo-fuzz, built with cargo
#   tests/lib/fetch.sh cargo-mutants  the folder of an executable cargo-mutants, built with cargo
#   tests/lib/fetch.sh cargo-deny  the folder of an executable cargo-deny, built with cargo
#   tests/lib/fetch.sh mdbook      the folder of an executable mdbook, built with cargo
#   tests/lib/fetch.sh chromium    the path of a browser
#   tests/lib/fetch.sh playwright  the folder of playwright-core, which drives it, by npm
#   tests/lib/fetch.sh lintian     the path of Debian's checker of packages
#   tests/lib/fetch.sh cdxgen      the path of what lists the components of a release, by npm
#   tests/lib/fetch.sh schemathesis  the path of an executable schemathesis, by pip
#
# Everything goes into a cache outside the repository. A second call costs nothing. An interrupted
# call leaves nothing that a later call could mistake for complete.

# shellcheck source=tests/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

VERSITYGW_VERSION=v1.8.0
MINIO_VERSION=v0.0.0-20260212201848-7aac2a2c5b7c # its tags do not resolve as versions of a module
FAKE_GCS_VERSION=v1.56.1
AZURITE_VERSION=3.37.0
HELM_VERSION=v3.22.0
OPERATOR_VERSION=v0.85.0     # of the Prometheus operator, whose schemas the module contains
ACTIONLINT_VERSION=v1.7.12
TRINO_VERSION=476
HADOOP_VERSION=3.5.0         # the first that runs on a JDK without a security manager
CARGO_FUZZ_VERSION=0.13.2
CARGO_DENY_VERSION=0.20.2
CARGO_MUTANTS_VERSION=27.1.0
MDBOOK_VERSION=0.5.4
SCHEMATHESIS_VERSION=4.32.5
PLAYWRIGHT_VERSION=1.65.1
CDXGEN_VERSION=12.8.4       # as deploy/packages/release-files
KUBERNETES_VALIDATE_VERSION=1.37.0 # the newest version of Kubernetes whose schemas it has
JDK_AT_LEAST=25              # Trino 476 needs 24, the suites against 483 need 25
GO_AT_LEAST=21               # since 1.21, Go downloads the toolchain that a module requires
GO_TOOLCHAIN=go1.26.0        # used if the distribution's Go is older
MAVEN_COPY=org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy

# --- JDK -------------------------------------------------------------------------------------

# jdk_major HOME: the major version of the JDK at HOME; prints nothing if there is none.
jdk_major() {
    [ -x "$1/bin/javac" ] && [ -f "$1/release" ] || return 0
    sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$1/release"
}

jdk_candidates() {
    local java
    [ -n "${JAVA_HOME:-}" ] && printf '%s\n' "$JAVA_HOME"
    java=$(command -v java || true)
    [ -n "$java" ] && dirname "$(dirname "$(readlink -f "$java")")"
    local folder
    for folder in /usr/lib/jvm /usr/java /opt /opt/java "$HOME/.jdks" \
        "$HOME/.sdkman/candidates/java" /Library/Java/JavaVirtualMachines; do
        find "$folder" -mindepth 1 -maxdepth 1 2>/dev/null | sort -V -r | while read -r home; do
            printf '%s\n%s\n' "$home" "$home/Contents/Home"
        done
    done
}

find_jdk() {
    local home major
    while read -r home; do
        major=$(jdk_major "$home")
        if [ -n "$major" ] && [ "$major" -ge "$JDK_AT_LEAST" ]; then
            printf '%s\n' "$home"
            return
        fi
    done < <(jdk_candidates)
    die "no JDK $JDK_AT_LEAST or newer in JAVA_HOME, on PATH or in the usual folders; the plugin" \
        "and Trino need it. Install one, for example Temurin 25, or set JAVA_HOME."
}

# --- programs that Go builds --------------------------------------------------------------------

go_minor() { "$1" env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p'; }

# An old Go cannot switch to a newer toolchain, but the toolchain is a module that it can download
# like any other.
go_from_toolchain() {
    local old=$1 module dir
    module="golang.org/toolchain@v0.0.1-$GO_TOOLCHAIN.$("$old" env GOOS)-$("$old" env GOARCH)"
    "$old" mod download "$module" >&2
    dir="$("$old" env GOMODCACHE)/$module"
    chmod -R u+w "$dir"
    chmod +x "$dir"/bin/* "$dir"/pkg/tool/*/* # a module archive carries no modes
    printf '%s\n' "$dir/bin/go"
}

find_go() {
    local go
    go=$(command -v go || true)
    if [ -z "$go" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "Go is not installed: installing the package golang-go"
        { apt-get update && apt-get install -y --no-install-recommends golang-go; } >&2
        go=$(command -v go || true)
    fi
    [ -n "$go" ] || die "no go on PATH to build versitygw, the S3 server of the tests, other" \
        "servers, and what checks deploy/. Install Go 1.$GO_AT_LEAST or newer, or set" \
        "STOPOVER_TEST_VERSITYGW to a versitygw binary."
    if [ "$(go_minor "$go")" -ge "$GO_AT_LEAST" ]; then
        printf '%s\n' "$go"
    else
        go_from_toolchain "$go"
    fi
}

# build_go_tool NAME VERSION PACKAGE: at low priority, since it compiles for minutes.
build_go_tool() {
    local name=$1 version=$2 target="$CACHE/bin/$1-$2" go build
    [ -x "$target" ] && return
    go=$(find_go)
    say "building $name $version (once, one to four minutes)"
    build=$(scratch "$name")
    # shellcheck disable=SC2064
    trap "rm -rf '$build'" EXIT
    GOBIN="$build" GOFLAGS=-mod=mod nice -n 10 "$go" install "$3@$version" >&2
    mkdir -p "$CACHE/bin"
    mv "$build/$name" "$target"
    rm -rf "$build"
    trap - EXIT
}

# fetch_go_tool NAME VERSION PACKAGE: its executable.
fetch_go_tool() {
    with_lock "$1" build_go_tool "$@"
    printf '%s\n' "$CACHE/bin/$1-$2"
}

fetch_versitygw() {
    if [ -n "${STOPOVER_TEST_VERSITYGW:-}" ]; then
        [ -x "$STOPOVER_TEST_VERSITYGW" ] ||
            die "STOPOVER_TEST_VERSITYGW=$STOPOVER_TEST_VERSITYGW is not an executable file"
        printf '%s\n' "$STOPOVER_TEST_VERSITYGW"
        return
    fi
    fetch_go_tool versitygw "$VERSITYGW_VERSION" github.com/versity/versitygw/cmd/versitygw
}

# server_version NAME: of a server of the tests, as docs/stores.md names it.
server_version() {
    case "$1" in
        versitygw) printf '%s\n' "$VERSITYGW_VERSION" ;;
        minio) sed 's/.*-\(2[0-9]\{7\}\)[0-9]*-.*/\1/' <<<"$MINIO_VERSION" ;;
        fake-gcs-server) printf '%s\n' "$FAKE_GCS_VERSION" ;;
        azurite) printf '%s\n' "$AZURITE_VERSION" ;;
        hadoop) printf '%s\n' "$HADOOP_VERSION" ;;
        *) die "no server of the tests is called $1" ;;
    esac
}

build_grafana_check() {
    local target=$1 go build
    [ -x "$target" ] && return
    go=$(find_go)
    say "building the checker of dashboards (once, about a minute)"
    build=$(scratch grafana-check)
    # shellcheck disable=SC2064
    trap "rm -rf '$build'" EXIT
    (cd "$ROOT/tests/deploy/grafana" && nice -n 10 "$go" build -o "$build/check" .) >&2
    mkdir -p "$CACHE/bin"
    mv "$build/check" "$target"
    rm -rf "$build"
    trap - EXIT
}

# Named by its source, so that a change builds it again.
fetch_grafana_check() {
    local target
    target=$(cat "$ROOT"/tests/deploy/grafana/* | sha256sum | cut -c 1-12)
    target=$CACHE/bin/grafana-check-$target
    with_lock grafana-check build_grafana_check "$target"
    printf '%s\n' "$target"
}

# Only downloaded: the module contains the schemas that its generator wrote.
fetch_crds() {
    local go module=github.com/prometheus-operator/prometheus-operator
    go=$(find_go)
    "$go" mod download "$module@$OPERATOR_VERSION" >&2
    module=$("$go" env GOMODCACHE)/$module@$OPERATOR_VERSION
    printf '%s\n' "$module/example/prometheus-operator-crd"
}

# --- Trino -----------------------------------------------------------------------------------

maven_copy() { mvn -q -B "$MAVEN_COPY" -Dartifact="$1" -DoutputDirectory="$2" >&2; }

# The "core" archive has the server and the filesystem exchange but no connector; tpch is a separate
# archive. Together they are a quarter of the full server.
unpack_trino() {
    local target="$CACHE/trino-$TRINO_VERSION" build jdk
    [ -d "$target" ] && return
    command -v mvn >/dev/null 2>&1 || die "mvn is not on PATH: install Maven 3.8 or newer"
    jdk=$(find_jdk)
    say "fetching the Trino $TRINO_VERSION server (once, about 210 MB)"
    build=$(scratch trino)
    # shellcheck disable=SC2064
    trap "rm -rf '$build'" EXIT
    (
        cd "$build" # away from any pom.xml
        export JAVA_HOME="$jdk"
        maven_copy "io.trino:trino-server-core:$TRINO_VERSION:tar.gz" "$build/download"
        maven_copy "io.trino:trino-tpch:$TRINO_VERSION:zip" "$build/download"
        mkdir -p server/plugin connector
        tar -xzf "download/trino-server-core-$TRINO_VERSION.tar.gz" -C server \
            --strip-components=1 "trino-server-core-$TRINO_VERSION/lib" \
            "trino-server-core-$TRINO_VERSION/plugin/exchange-filesystem"
        (cd connector && "$jdk/bin/jar" xf "../download/trino-tpch-$TRINO_VERSION.zip")
        mv "connector/trino-tpch-$TRINO_VERSION" server/plugin/tpch
    )
    mv "$build/server" "$target"
    rm -rf "$build"
    trap - EXIT
}

fetch_trino() {
    with_lock trino unpack_trino
    printf '%s\n' "$CACHE/trino-$TRINO_VERSION"
}

# Most connectors are only published as part of the whole server, whose plugins share jars by hard
# links. So all of it is unpacked, and what is not used is removed.
CONNECTORS="tpch tpcds geospatial postgresql mysql mariadb sqlserver iceberg delta-lake hive kafka \
    duckdb cassandra clickhouse druid exasol ignite oracle redshift singlestore snowflake vertica \
    jmx http-event-listener"

unpack_trino_full() {
    local target="$CACHE/trino-full-$TRINO_VERSION" build jdk plugin
    if [ -d "$target" ]; then
        for plugin in $CONNECTORS; do
            [ -d "$target/plugin/$plugin" ] || break
        done
        [ ! -d "$target/plugin/$plugin" ] || return 0
        say "$target lacks $plugin: it was unpacked by an older version of this script"
        rm -rf "$target"
    fi
    command -v mvn >/dev/null 2>&1 || die "mvn is not on PATH: install Maven 3.8 or newer"
    jdk=$(find_jdk)
    say "fetching the Trino $TRINO_VERSION server with all connectors (once, about 820 MB)"
    build=$(scratch trino-full)
    # shellcheck disable=SC2064
    trap "rm -rf '$build'" EXIT
    (
        cd "$build" # away from any pom.xml
        export JAVA_HOME="$jdk"
        maven_copy "io.trino:trino-server:$TRINO_VERSION:tar.gz" "$build/download"
        mkdir -p all server/plugin
        tar -xzf "download/trino-server-$TRINO_VERSION.tar.gz" -C all --strip-components=1
        mv all/lib server/lib
        for plugin in exchange-filesystem $CONNECTORS; do
            mv "all/plugin/$plugin" "server/plugin/$plugin"
        done
    )
    mv "$build/server" "$target"
    rm -rf "$build"
    trap - EXIT
}

fetch_trino_full() {
    with_lock trino-full unpack_trino_full
    printf '%s\n' "$CACHE/trino-full-$TRINO_VERSION"
}

# --- HDFS ------------------------------------------------------------------------------------

# copy_hadoop ARTIFACT NAME: one of Hadoop's artifacts, with the jars that it needs.
copy_hadoop() {
    local target="$CACHE/$2-$HADOOP_VERSION" build jdk
    [ -d "$target" ] && return
    command -v mvn >/dev/null 2>&1 || die "mvn is not on PATH: install Maven 3.8 or newer"
    jdk=$(find_jdk)
    say "fetching $1 $HADOOP_VERSION (once)"
    build=$(scratch "$2")
    # shellcheck disable=SC2064
    trap "rm -rf '$build'" EXIT
    cat >"$build/pom.xml" <<POM
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>stopover</groupId>
  <artifactId>hdfs</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.hadoop</groupId>
      <artifactId>$1</artifactId>
      <version>$HADOOP_VERSION</version>
    </dependency>
  </dependencies>
</project>
POM
    JAVA_HOME="$jdk" mvn -q -B -f "$build/pom.xml" "${MAVEN_COPY/%:copy/:copy-dependencies}" \
        -DincludeScope=runtime -DoutputDirectory="$build/lib" >&2
    mv "$build/lib" "$target"
    rm -rf "$build"
    trap - EXIT
}

# fetch_hadoop ARTIFACT NAME: the classes of NameNode and DataNode (110 MB), or a KDC.
fetch_hadoop() {
    with_lock "$2" copy_hadoop "$1" "$2"
    printf '%s\n' "$CACHE/$2-$HADOOP_VERSION"
}

# --- Debian's packages -----------------------------------------------------------------------

# unpack_debian NAME PACKAGE: unpacks the package and its missing dependencies into the cache.
# Nothing is installed, so no service starts and root is not needed.
unpack_debian() {
    local name=$1 package=$2 target="$CACHE/$1" build
    [ -d "$target" ] && return
    say "fetching $package from the distribution's packages (once)"
    build=$(scratch "$name")
    # shellcheck disable=SC2064
    trap "rm -rf '$build'" EXIT
    chmod 755 "$build"
    (
        cd "$build"
        # The package lists may be older than the mirror.
        [ "$(id -u)" != 0 ] || apt-get -q update >&2
        apt-get -s --no-install-recommends install "$package" | sed -n 's/^Inst \([^ ]*\) .*/\1/p' |
            xargs apt-get -q download >&2
        mkdir tree
        for file in *.deb; do dpkg-deb -x "$file" tree; done
    )
    mv "$build/tree" "$target"
    rm -rf "$build"
    trap - EXIT
}

# fetch_debian NAME PROGRAM PACKAGE VARIABLE: the executable that the variable names, else the
# installed one, else the one in Debian's package.
fetch_debian() {
    local name=$1 program=$2 package=$3 variable=$4 found
    found=${!variable:-}
    if [ -n "$found" ]; then
        [ -x "$found" ] || die "$variable=$found is not an executable file"
        printf '%s\n' "$found"
        return
    fi
    found=$(installed "$program")
    if [ -z "$found" ]; then
        command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 ||
            die "$program is not installed; the tests need it. Install it, or set $variable to" \
                "its executable."
        with_lock "$name" unpack_debian "$name" "$package"
        found=$(find "$CACHE/$name/usr" -type f -name "$program" -perm -u+x | sort -V | tail -n 1)
    fi
    [ -n "$found" ] || die "Debian's $package contains no $program"
    printf '%s\n' "$found"
}

# installed PROGRAM: its path; some distributions do not have servers on the PATH of users.
installed() {
    local path
    path=$(command -v "$1" || true)
    [ -n "$path" ] || path=$(find /usr/lib/postgresql /usr/sbin /usr/libexec -maxdepth 3 \
        -name "$1" -perm -u+x 2>/dev/null | sort -V | tail -n 1)
    printf '%s' "$path"
}

# Debian's package without a version only depends on the one of the release.
postgresql_package() {
    apt-cache depends postgresql 2>/dev/null |
        sed -n 's/^ *Depends: \(postgresql-[0-9]*\)$/\1/p' | head -n 1
}

# --- cargo tools ---------------------------------------------------------------------------------

build_cargo_fuzz() {
    local target="$CACHE/cargo-fuzz-$CARGO_FUZZ_VERSION" build
    [ -d "$target" ] && return
    say "building cargo-fuzz $CARGO_FUZZ_VERSION (once, about a minute)"
    build=$(scratch cargo-fuzz)
    cargo install cargo-fuzz --locked --version "$CARGO_FUZZ_VERSION" --root "$build" >&2
    mv "$build" "$target"
}

fetch_cargo_fuzz() {
    with_lock cargo-fuzz build_cargo_fuzz
    printf '%s\n' "$CACHE/cargo-fuzz-$CARGO_FUZZ_VERSION/bin"
}

# build_cargo_tool NAME VERSION: unoptimized, since these run for a moment, and build in a third of
# the time.
build_cargo_tool() {
    local name=$1 version=$2 target="$CACHE/$1-$2" build
    [ -d "$target" ] && return
    say "building $name $version (once, about two minutes)"
    build=$(scratch "$name")
    CARGO_PROFILE_DEV_DEBUG=0 cargo install "$name" --locked --debug \
        --version "$version" --root "$build" --target-dir "$build/target" >&2
    rm -rf "$build/target"
    mv "$build" "$target"
}

# fetch_cargo_tool NAME VERSION: the folder of its executable.
fetch_cargo_tool() {
    with_lock "$1" build_cargo_tool "$1" "$2"
    printf '%s\n' "$CACHE/$1-$2/bin"
}

has_python() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

# Makes sure that there is a python3 with its module venv.
find_python() {
    if ! has_python && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "Python or its module venv is not installed: installing the package python3-venv"
        { apt-get update && apt-get install -y --no-install-recommends python3-venv; } >&2
    fi
    has_python || die "no python3 with its module venv on PATH. Install Python 3.9 or newer."
}

# install_python_tool NAME VERSION: a virtual environment cannot be moved, so its last file marks it
# as complete.
install_python_tool() {
    local target="$CACHE/$1-$2"
    [ -f "$target/complete" ] && return
    say "fetching $1 $2 (once)"
    rm -rf "$target"
    find_python
    python3 -m venv "$target" >&2
    "$target/bin/pip" install -q "$1==$2" >&2
    touch "$target/complete"
}

# fetch_python_tool NAME VERSION: its executable, which has the name of the package.
fetch_python_tool() {
    with_lock "$1" install_python_tool "$1" "$2"
    printf '%s\n' "$CACHE/$1-$2/bin/$1"
}

# Installed, not unpacked: it needs libraries of many packages.
find_chromium() {
    local found=${STOPOVER_TEST_CHROMIUM:-}
    [ -n "$found" ] || found=$(command -v chromium || command -v chromium-browser || true)
    if [ -z "$found" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "Chromium is not installed: installing the package chromium"
        { apt-get update && apt-get install -y --no-install-recommends chromium; } >&2
        found=$(command -v chromium || true)
    fi
    [ -n "$found" ] || die "no Chromium on PATH. Install it, or set STOPOVER_TEST_CHROMIUM."
    printf '%s\n' "$found"
}

# Installed, not unpacked: its parts are found by fixed paths.
find_lintian() {
    if [ -z "$(installed lintian)" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1
    then
        say "lintian is not installed: installing it"
        { apt-get update && apt-get install -y --no-install-recommends lintian; } >&2
    fi
    [ -n "$(installed lintian)" ] || die "lintian is not on PATH. Install it; Debian has it."
    installed lintian
    printf '\n'
}

# Makes sure that there are npm and Node.js.
find_npm() {
    if ! command -v npm >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1
    then
        say "npm is not installed: installing the packages nodejs and npm"
        { apt-get update && apt-get install -y --no-install-recommends nodejs npm; } >&2
    fi
    command -v npm >/dev/null 2>&1 || die "no npm on PATH. Install Node.js 20 or newer."
}

# install_npm_tool NAME VERSION PACKAGE [OPTION...]
install_npm_tool() {
    local target="$CACHE/$1-$2"
    [ -f "$target/complete" ] && return
    find_npm
    say "fetching $3 $2 (once)"
    rm -rf "$target"
    mkdir -p "$target"
    npm install --prefix "$target" --no-fund --no-audit "${@:4}" "$3@$2" >&2
    touch "$target/complete"
}

fetch_playwright() {
    with_lock playwright install_npm_tool playwright "$PLAYWRIGHT_VERSION" playwright-core
    printf '%s\n' "$CACHE/playwright-$PLAYWRIGHT_VERSION/node_modules/playwright-core"
}

fetch_azurite() {
    with_lock azurite install_npm_tool azurite "$AZURITE_VERSION" azurite
    printf '%s\n' "$CACHE/azurite-$AZURITE_VERSION/node_modules/.bin/azurite-blob"
}

fetch_cdxgen() {
    with_lock cdxgen install_npm_tool cdxgen "$CDXGEN_VERSION" @cyclonedx/cdxgen --omit=optional
    printf '%s\n' "$CACHE/cdxgen-$CDXGEN_VERSION/node_modules/.bin/cdxgen"
}

case "${1:-}" in
    jdk) find_jdk ;;
    cargo-fuzz) fetch_cargo_fuzz ;;
    cargo-deny) fetch_cargo_tool cargo-deny "$CARGO_DENY_VERSION" ;;
    mdbook) fetch_cargo_tool mdbook "$MDBOOK_VERSION" ;;
    cargo-mutants) fetch_cargo_tool cargo-mutants "$CARGO_MUTANTS_VERSION" ;;
    schemathesis) fetch_python_tool schemathesis "$SCHEMATHESIS_VERSION" ;;
    versitygw) fetch_versitygw ;;
    minio) fetch_go_tool minio "$MINIO_VERSION" github.com/minio/minio ;;
    fake-gcs-server)
        fetch_go_tool fake-gcs-server "$FAKE_GCS_VERSION" github.com/fsouza/fake-gcs-server
        ;;
    azurite) fetch_azurite ;;
    version) server_version "${2:-}" ;;
    helm) fetch_go_tool helm "$HELM_VERSION" helm.sh/helm/v3/cmd/helm ;;
    actionlint)
        fetch_go_tool actionlint "$ACTIONLINT_VERSION" github.com/rhysd/actionlint/cmd/actionlint
        ;;
    prometheus | promtool) fetch_debian prometheus "$1" prometheus "STOPOVER_TEST_${1^^}" ;;
    crds) fetch_crds ;;
    grafana-check) fetch_grafana_check ;;
    kubernetes-validate)
        fetch_python_tool kubernetes-validate "$KUBERNETES_VALIDATE_VERSION"
        ;;
    chromium) find_chromium ;;
    playwright) fetch_playwright ;;
    cdxgen) fetch_cdxgen ;;
    lintian) find_lintian ;;
    trino) fetch_trino ;;
    trino-full) fetch_trino_full ;;
    hadoop) fetch_hadoop hadoop-client-minicluster hadoop ;;
    minikdc) fetch_hadoop hadoop-minikdc minikdc ;;
    postgresql)
        fetch_debian postgresql postgres "$(postgresql_package)" STOPOVER_TEST_POSTGRES
        ;;
    mariadb) fetch_debian mariadb mariadbd mariadb-server-core STOPOVER_TEST_MARIADB ;;
    kinit) fetch_debian krb5-user kinit krb5-user STOPOVER_TEST_KINIT ;;
    *)
        die "usage: tests/lib/fetch.sh" \
            "jdk|versitygw|minio|azurite|fake-gcs-server|version NAME|helm|actionlint|prometheus|\
promtool|crds|grafana-check|kubernetes-validate|trino|trino-full|hadoop|minikdc|kinit|postgresql|mariadb|cargo-fuzz|cargo-deny|cargo-mutants|\
mdbook|schemathesis|chromium|playwright|cdxgen|lintian"
        ;;
esac
