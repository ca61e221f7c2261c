# shellcheck shell=bash
# Sourced by the scripts beside this folder: keeps .venv in step with pyproject.toml and constraints.txt.
# Starts no Python while .venv is up to date, leaves the caller's working directory alone, and prints to stderr only,
# so that `scripts/fleet status --json` stays clean JSON.
#
# .venv/.fleet-stamp       what .venv was made from; written last, so an interrupted set-up has none and starts over
# .venv/.fleet-stamp-dev   the same for the tools of scripts/test and scripts/check
# .venv/.fleet-lock        held while one set-up works; also the mark that .venv is ours to renew
# .venv/.fleet-install.log what pip said

ROOT=${BASH_SOURCE[0]%/lib/venv.sh}
ROOT=$(cd -- "$ROOT/.." && pwd -P)
VENV=$ROOT/.venv
INSTALL_LOG=$VENV/.fleet-install.log

say() { printf 'fleet set-up: %s\n' "$*" >&2; }

die() {
    say "$1"
    shift
    (($# == 0)) || printf '  %s\n' "$@" >&2
    exit 1
}

# ensure_venv run|dev: returns with .venv usable, or ends the script with what is wrong and the next step.
ensure_venv() {
    up_to_date "$1" && return
    take_lock
    up_to_date "$1" || set_up "$1"
    exec {lock_fd}>&-
}

up_to_date() {
    local stamp
    [[ -x $VENV/bin/python && -r $(stamp_file "$1") ]] || return 1
    stamp=$(<"$(stamp_file "$1")") && [[ $stamp == "$(fresh_stamp "$1")" ]]
}

stamp_file() { if [[ $1 == dev ]]; then echo "$VENV/.fleet-stamp-dev"; else echo "$VENV/.fleet-stamp"; fi; }

# pyvenv.cfg holds the Python version and where it lives; the path is in it because a venv cannot be moved.
fresh_stamp() {
    { printf '%s\n' "$1" "$ROOT" && cat -- "$ROOT"/{pyproject.toml,constraints.txt,.venv/pyvenv.cfg}; } | sha256sum
}

take_lock() {
    [[ ! -d $VENV || -e $VENV/.fleet-lock ]] || die "$VENV was not made by these scripts, so it is left alone." \
        "Move it away, then run the same command again."
    { mkdir -p -- "$VENV" && : >>"$VENV/.fleet-lock"; } 2>/dev/null || die \
        "$VENV is missing or out of date, and $(id -un) may not write there." \
        "Run the same command once as the owner of that folder."
    exec {lock_fd}>>"$VENV/.fleet-lock"
    flock -n "$lock_fd" && return
    say "another set-up of $VENV is at work; waiting for it"
    flock "$lock_fd"
}

set_up() {
    local started=$SECONDS
    trap 'say "interrupted; the next run starts over"; exit 130' INT TERM
    sound || make_venv
    rm -f -- "$VENV/.fleet-stamp" "$VENV/.fleet-stamp-dev"
    install_packages "$1"
    [[ $1 == run ]] || write_stamp dev
    write_stamp run
    trap - INT TERM
    say "done in $((SECONDS - started)) s"
}

# A finished .venv of this very folder: pip brings it up to date in place. Anything else is made anew.
sound() {
    [[ -e $VENV/.fleet-stamp ]] && grep -qF -- "$VENV/bin/python" "$VENV/bin/fleet" 2>/dev/null &&
        usable "$VENV/bin/python" && "$VENV/bin/python" -I -c 'import pip' 2>/dev/null
}

make_venv() {
    local python
    python=$(pick_python) || exit 1
    say "making $VENV with $("$python" --version) ($python)"
    find "$VENV" -mindepth 1 -maxdepth 1 ! -name .fleet-lock -exec rm -rf -- {} +
    "$python" -I -m venv -- "$VENV" >"$INSTALL_LOG" 2>&1 && return
    cat -- "$INSTALL_LOG" >&2
    die "$python could not make a virtual environment; its words are above."
}

install_packages() {
    local wanted=. status=0
    [[ $1 == run ]] || wanted=".[dev]"
    say "installing PySyft, PyTorch and what they need; minutes the first time (log: $INSTALL_LOG)"
    (
        cd -- "$ROOT"
        export PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0
        exec "$VENV/bin/python" -I -m pip install --progress-bar off -c constraints.txt -e "$wanted"
    ) 2>&1 | tee -- "$INSTALL_LOG" | show_stages || status=$?
    ((status == 0)) || explain_failure
}

# Reads pip's output: one line a stage, and on a terminal the package at hand.
show_stages() {
    local line count=0
    while IFS= read -r line; do
        case $line in
        *Collecting\ *) show_package "$((++count))" "${line#*Collecting }" ;;
        *Installing\ collected\ packages:*) clear_line && say "unpacking $(wc -w <<<"${line#*: }") packages" ;;
        esac
    done
    clear_line
}

show_package() { [[ ! -t 2 ]] || printf '\r\033[Kfleet set-up: fetching package %d: %s' "$1" "${2%% *}" >&2; }
clear_line() { [[ ! -t 2 ]] || printf '\r\033[K' >&2; }

explain_failure() {
    tail -n 25 -- "$INSTALL_LOG" >&2
    if grep -qE 'NewConnection|NameResolution|Connect(ion)?(Timeout|Error)|ReadTimeout|versions: none' "$INSTALL_LOG"; then
        die "the package index cannot be reached; pip's last words are above, all of them in $INSTALL_LOG." \
            "Connect this machine and run the same command again, or name a mirror (PIP_INDEX_URL)" \
            "or a folder of wheels (PIP_NO_INDEX=1 PIP_FIND_LINKS=folder) in the environment."
    fi
    die "pip failed; its last words are above, all of them in $INSTALL_LOG." \
        "Mend that and run the same command again: it starts over by itself."
}

write_stamp() {
    fresh_stamp "$1" >"$(stamp_file "$1").new"
    mv -- "$(stamp_file "$1").new" "$(stamp_file "$1")"
}

usable() { "$1" -I -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; }
complete() { "$1" -I -c 'import venv, ensurepip' 2>/dev/null; }

# Prints the interpreter that .venv is made with. $FLEET_PYTHON, when set, is the only candidate.
pick_python() {
    local python incomplete='' candidates=(python3.12 python3.11 python3)
    [[ -z ${FLEET_PYTHON:-} ]] || candidates=("$FLEET_PYTHON")
    for python in "${candidates[@]}"; do
        usable "$python" || continue
        if complete "$python"; then
            command -v -- "$python"
            return
        fi
        incomplete=$python
    done
    [[ -z $incomplete ]] || die "$incomplete comes without the venv module." \
        "On Debian and Ubuntu: apt-get install python3-venv"
    python=${candidates[-1]}
    die "fleet needs Python 3.11 or 3.12; $python is $("$python" --version 2>/dev/null || echo 'not there')." \
        "Install one (Debian 12: apt-get install python3 python3-venv), or name it: FLEET_PYTHON=/path/to/python3.12"
}
