#!/usr/bin/env bash
# Makes this machine ready: `setup.sh COMMAND...` installs the Debian packages of those commands where they are
# missing, then makes .venv with the locked versions. A second run changes nothing and takes no time.
set -euo pipefail
cd "$(dirname "$0")/../.."

PATH="$PATH:/usr/sbin:/sbin"
READY=.venv/.ready

package_of() {
    case "$1" in
        mosquitto_sub) echo mosquitto-clients ;;
        node) echo nodejs ;;
        *) echo "$1" ;;
    esac
}

# The first Python of at least 3.11 that can make virtual environments; PYTHON names another.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

install_packages() {
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if sudo -n true 2>/dev/null; then
            as_root=(sudo -n)
        elif [ -t 0 ] && command -v sudo >/dev/null; then
            as_root=(sudo)
        else
            echo "Please have an administrator run: apt-get install $*" >&2
            exit 1
        fi
    fi
    if ! command -v apt-get >/dev/null; then
        echo "Please install these (they are the names of Debian's packages): $*" >&2
        exit 1
    fi
    echo "Installing Debian packages: $*"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

need_library() {
    ldconfig -p | grep -F "$1" >/dev/null || missing+=("$2")
}

missing=()
for program in "$@"; do
    command -v "$program" >/dev/null || missing+=("$(package_of "$program")")
done
# What programs in our wheels are linked to and a minimal Debian lacks: mongod, and Playwright's driver.
command -v mongod >/dev/null || need_library libcurl.so.4 libcurl4
case " $* " in *" chromium "*) need_library libatomic.so.1 libatomic1 ;; esac
if [ ! -e "$READY" ] && ! find_python >/dev/null && [ -z "${PYTHON:-}" ]; then
    missing+=(python3-venv)
fi
if [ ${#missing[@]} -gt 0 ]; then
    install_packages "${missing[@]}"
fi

if [ -e "$READY" ] && [ ! requirements.lock -nt "$READY" ] && [ ! pyproject.toml -nt "$READY" ] \
    && [ -x .venv/bin/python ]; then
    exit 0
fi
if ! python=$(find_python); then
    echo "WFM Fleet needs Python 3.11 or later with its venv module; PYTHON=/path/to/python names one." >&2
    exit 1
fi
echo "Making .venv with $("$python" --version) and installing the locked packages (about a minute) ..."
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
touch "$READY"
