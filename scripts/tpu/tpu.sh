#!/usr/bin/env bash
# jaxfood on a Cloud TPU, from nothing to results, by gcloud. docs/tpu.md walks through it.
# Works on one TPU VM and on a slice of several (gcloud: "workers"). Keeps to what the bash 3.2 of macOS knows.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: bash scripts/tpu/tpu.sh STEP --name NAME --zone ZONE [--project PROJECT] [--quiet] [--dry-run] [OPTION ...]

STEP, in the order of use:
  create    ask for a TPU (a queued resource):  --type TYPE [--runtime VERSION] [--spot] [--direct] [-- FLAGS OF gcloud]
  status    its state; install when it is ACTIVE (with --direct: READY)
  install   build this checkout's wheel, copy it to every worker and install it there
  train     start the training on every worker:  --workdir DIR --pictures DIR [--resume] [-- FLAGS OF jaxfood.train]
  logs      follow a worker's log until Ctrl-C; training goes on:  [--worker N]
  stop      save and stop (what Ctrl-C does at a terminal); train --resume goes on
  fetch     copy the run here (from a bucket without --name and --zone):  --workdir DIR [--out FOLDER]
  delete    delete the TPU, which ends its cost

  --type TYPE        accelerator type: v5litepod-8, v6e-8, v5p-8, v4-32, ...
  --runtime VERSION  TPU software version (default: Google's table for JAX, by type)
  --spot             cheaper, and may be taken away at any time
  --direct           no queue: a TPU at once or an error; give it to status and delete too
  --workdir DIR      the run's directory: gs://BUCKET/RUN; a folder on the TPU VM will do where there is one worker
  --pictures DIR     data.root: a folder in a bucket or on every worker
  --worker N         whose log: a number or all (default: 0)
  --out FOLDER       where fetch puts the run (default: runs)
  --quiet            gcloud asks no questions
  --dry-run          print the commands, ready to paste, and run nothing
TEXT
}

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

# The words, quoted for a POSIX shell.
quote() {
    local word separator=''
    for word; do
        case $word in
            '' | *[!A-Za-z0-9_@%+=:,./-]*) word="'$(printf '%s' "$word" | sed "s/'/'\\\\''/g")'" ;;
        esac
        printf '%s%s' "$separator" "$word"
        separator=' '
    done
}

run() {
    if [ -n "$dry_run" ]; then
        quote "$@"
        echo
    else
        "$@"
    fi
}

say() {
    if [ -z "$dry_run" ]; then printf '%s\n' "$1"; fi
}

on_workers() { # WORKER COMMAND: a command line for the workers' shell, in their home directory
    run gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker="$1" --command="$2"
}

# https://cloud.google.com/tpu/docs/runtimes, "PyTorch and JAX".
runtime_of() {
    case $1 in
        v6e-*) echo v2-alpha-tpuv6e ;;
        v5p-*) echo v2-alpha-tpuv5 ;;
        v5litepod-*) echo v2-alpha-tpuv5-lite ;;
        v[234]-*) echo tpu-ubuntu2204-base ;;
        *) fail "--type $1: no runtime version is known for it; give one with --runtime" ;;
    esac
}

create() {
    local resource=queued-resources options
    [ -n "$type" ] || fail "create needs --type: the accelerator type, such as v5litepod-8"
    [ -n "$runtime" ] || runtime=$(runtime_of "$type")
    if [ -n "$direct" ]; then
        resource=tpu-vm
        options=(--version="$runtime")
    else
        options=(--node-id="$name" --runtime-version="$runtime")
    fi
    if [ -n "$spot" ]; then options+=(--spot); fi
    run gcloud compute tpus "$resource" create "$name" "${place[@]}" --accelerator-type="$type" "${options[@]}" \
        ${arguments[@]+"${arguments[@]}"}
    say "asked for; status says when it is there"
}

status() {
    local resource=queued-resources
    if [ -n "$direct" ]; then resource=tpu-vm; fi
    run gcloud compute tpus "$resource" describe "$name" "${place[@]}" '--format=yaml(state)'
}

# TPU VMs come with Python 3.10. uv brings a newer one: no root, no wait for the lock of a fresh VM's own apt.
install() {
    local root version wheel
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
    version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$root/jaxfood/version.py")
    wheel=jaxfood-$version-py3-none-any.whl
    run python3 -m pip wheel --quiet --no-deps --wheel-dir "$root/dist" "$root"
    run gcloud compute tpus tpu-vm scp "$root/dist/$wheel" "$name:" "${place[@]}" --worker=all
    on_workers all "set -euo pipefail
curl -LsSf https://astral.sh/uv/install.sh | env UV_UNMANAGED_INSTALL=\"\$HOME/jaxfood-uv\" sh
jaxfood-uv/uv venv --quiet --allow-existing --python 3.13 jaxfood-env
jaxfood-uv/uv pip install --quiet --python jaxfood-env --reinstall-package jaxfood './${wheel}[tpu,gs]'
jaxfood-env/bin/python -c 'import jaxfood; print(\"jaxfood\", jaxfood.__version__)'"
}

has_data_flag() {
    case " ${arguments[*]-}" in *' --data.'*) ;; *) return 1 ;; esac
}

# The training is a session of its own, so it outlives the connection. `stop` signals its process group; the shell
# around it waits (trap), to write down how the training ended.
train() {
    local command=(jaxfood-env/bin/python -u -m jaxfood.train)
    [ -n "$workdir" ] || fail "train needs --workdir: the run's directory, such as gs://BUCKET/RUN"
    if [ -n "$resume" ]; then
        command+=(--workdir "$workdir" --resume) # the run has its own settings
    else
        [ -n "$pictures" ] || has_data_flag || fail "train needs --pictures: a folder, such as gs://BUCKET/hw3_data"
        command+=(--config tpu --workdir "$workdir")
    fi
    if [ -n "$pictures" ]; then command+=(--data.root "$pictures"); fi
    command+=(${arguments[@]+"${arguments[@]}"})
    on_workers all "set -eu
if [ -e jaxfood.pid ] && kill -0 \"\$(cat jaxfood.pid)\" 2> /dev/null; then
    echo 'error: a training runs here; stop it first' >&2
    exit 2
fi
setsid sh -c 'echo \$\$ > jaxfood.pid; trap : TERM; \"\$@\"; echo \"exit status \$?\"; rm jaxfood.pid' jaxfood \\
    $(quote "${command[@]}") \\
    < /dev/null > jaxfood.log 2>&1 &"
    say "started; logs follows it"
}

logs() {
    on_workers "$worker" 'tail -n 100 -F jaxfood.log'
}

stop() {
    # shellcheck disable=SC2016 # for the workers' shell to expand
    on_workers all 'kill -TERM -- "-$(cat jaxfood.pid)" 2> /dev/null || echo "no training runs here"'
}

fetch() {
    local run_here
    [ -n "$workdir" ] || fail "fetch needs --workdir: the run's directory, such as gs://BUCKET/RUN"
    workdir=${workdir%/}
    run_here=$out/${workdir##*/}
    run mkdir -p "$run_here"
    case $workdir in
        gs://*) run gcloud storage rsync --recursive "$workdir" "$run_here" ;;
        *) run gcloud compute tpus tpu-vm scp --recurse "$name:$workdir" "$out" "${place[@]}" --worker=0 ;;
    esac
    say "the run is in $run_here"
}

delete() {
    if [ -n "$direct" ]; then
        run gcloud compute tpus tpu-vm delete "$name" "${place[@]}"
    else
        run gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force # with its TPU VMs
    fi
}

name='' zone='' project='' type='' runtime='' workdir='' pictures='' worker=0 out=runs
spot='' direct='' resume='' quiet='' dry_run=''
arguments=()

step=${1-}
case $step in
    create | status | install | train | logs | stop | fetch | delete) shift ;;
    -h | --help)
        usage
        exit
        ;;
    *) fail "no step '$step': create, status, install, train, logs, stop, fetch or delete (see --help)" ;;
esac

while [ $# -gt 0 ]; do
    case $1 in
        --name | --zone | --project | --type | --runtime | --workdir | --pictures | --worker | --out)
            case ${2-} in '' | --*) fail "$1 needs a value" ;; esac
            printf -v "${1#--}" %s "$2"
            shift 2
            ;;
        --spot | --direct | --resume | --quiet)
            printf -v "${1#--}" yes
            shift
            ;;
        --dry-run)
            dry_run=yes
            shift
            ;;
        --help)
            usage
            exit
            ;;
        --)
            shift
            case $step in create | train) arguments=("$@") ;; *) fail "$step takes nothing after --" ;; esac
            break
            ;;
        --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
        *) fail "unknown argument '$1' (see --help)" ;;
    esac
done

case $step:$workdir in
    fetch:gs://*) ;; # from the bucket, also when the TPU is gone
    *)
        [ -n "$name" ] || fail "$step needs --name: the TPU's name, which you choose"
        [ -n "$zone" ] || fail "$step needs --zone: where the TPU is, such as us-west4-a"
        ;;
esac
if [ -z "$dry_run" ] && ! command -v gcloud > /dev/null; then
    fail "there is no gcloud on PATH; install the Google Cloud CLI: https://cloud.google.com/sdk/docs/install"
fi
place=(--zone="$zone")
if [ -n "$project" ]; then place+=(--project="$project"); fi
if [ -n "$quiet" ]; then place+=(--quiet); fi
"$step"
