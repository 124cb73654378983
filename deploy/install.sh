#!/bin/sh
# Installs the packages of a lock file, or this checkout, into a virtual environment, and shows the
# name of each package. If pip fails, the end of pip's own output follows.
#
#     deploy/install.sh BASE_PYTHON VENV_PYTHON LOCK_FILE [OPTION OF PIP …]
#     deploy/install.sh BASE_PYTHON VENV_PYTHON --editable .
#
# BASE_PYTHON has the pip that is used when the environment has none.
set -eu
base=$1 python=$2
shift 2
log=$(dirname "$(dirname "$python")")/install.log
pip="$python -m pip"
$pip --version >/dev/null 2>&1 || pip="$base -m pip --python $python"
$pip --version >/dev/null || { echo "pip is needed: apt-get install python3-pip" >&2; exit 2; }

# Without build isolation the build backend comes from the lock.
if [ "$1" = --editable ]; then
    set -- --quiet --no-deps --no-build-isolation --editable "$2"
else
    printf 'installing %s:' "$1"
    set -- --require-hashes -r "$@"
fi

# Python compiles a module at its first import. To compile all of them here would take longer than the
# download, and most are never imported.
# The exit code of pip goes through the pipe as the last line.
{ $pip install --no-compile --disable-pip-version-check --no-input "$@" 2>&1 && echo "exit 0" || echo "exit $?"; } | {
    : > "$log"
    code=1
    while IFS= read -r line; do
        case $line in
            "Collecting "*) name=${line#Collecting }; printf ' %s' "${name%%[=<>!~ ]*}" ;;
            "Installing collected packages"*) printf ' …' ;;
            "exit "*) code=${line#exit } ;;
        esac
        printf '%s\n' "$line" >> "$log"
    done
    case $1 in --require-hashes) echo ;; esac
    [ "$code" = 0 ] || { echo "pip failed; the whole output is in $log:" >&2; tail -n 20 "$log" >&2; }
    exit "$code"
}
