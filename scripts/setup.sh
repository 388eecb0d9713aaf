# shellcheck shell=bash
# Sourced by the scripts beside it: goes to the checkout, makes .venv there if it is missing or out of date,
# and puts it on the path. Set PYTHON to choose the interpreter that a new .venv is made with. A script may
# set `venv` and `extras` first, for an environment of its own.

set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$checkout"
venv=${venv:-.venv} extras=${extras:-cpu,dev}

step() { printf '\n== %s\n' "$*" >&2; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 2
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3 python; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "expected Python 3.11 or newer with its venv module; found none;" \
        "fix: install it (on Debian: apt install python3 python3-venv), or set PYTHON"
}

set_up() {
    local python stamp wanted
    if [[ ! -x $venv/bin/python ]]; then
        python=$(find_python)
        step "making $venv with $("$python" --version)"
        "$python" -m venv "$venv"
    fi
    stamp=$venv/rnnx-stamp
    # The place too: in a checkout that was moved or copied, the environment would run the code of the other one.
    wanted=$({ cat pyproject.toml constraints.txt && printf '%s\n' "$checkout"; } | cksum)
    if [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
        step "installing rnnx and its tools into $venv (the first time this downloads PyTorch)"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$extras]" ||
            fail "expected to install the packages in constraints.txt; found the failure above;" \
                "fix: check the connection to the package index and run this again"
        printf '%s\n' "$wanted" >"$stamp"
    fi
    export VIRTUAL_ENV="$checkout/$venv" PATH="$checkout/$venv/bin:$PATH"
    unset PYTHONHOME PYTHONPATH
}

set_up
