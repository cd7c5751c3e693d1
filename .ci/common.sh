# Sourced by the scripts beside it: a scratch folder outside the checkout, and how they build into it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset HEADGATE_PURE PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

quietly() {  # command...: its output only when it fails
    local log
    log=$(mktemp --tmpdir="$work")
    "$@" >"$log" 2>&1 || { cat "$log"; return 1; }
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

build_sdist() {  # into $work/dist, and unpacked into $sdist
    environment python3 build build
    build --sdist "$work/tree"
    tar -x -C "$work" -f "$work"/dist/headgate-*.tar.gz
    sdist=$(echo "$work"/headgate-*)
}

suite() {  # environment HEADGATE_PURE: the whole suite on the wheel installed there; src/ is not on its path
    (cd "$sdist" && HEADGATE_PURE=$2 "$work/$1/bin/python" -m pytest)
}
