#!/usr/bin/env bash
# jaxlora on Cloud TPU, from one VM to several slices of a pod.
#
#   tpu/pod.sh up     OPTIONS -- COMMAND   create, setup, run, follow; after a preemption again;
#                                          then fetch and delete
#   tpu/pod.sh create OPTIONS              request the machines, and wait until they are there
#   tpu/pod.sh setup  OPTIONS              install this checkout of jaxlora on every worker
#   tpu/pod.sh run    OPTIONS -- COMMAND   start `jaxlora COMMAND` on every worker
#   tpu/pod.sh follow OPTIONS              show what it prints, until it has ended
#   tpu/pod.sh fetch  OPTIONS              copy results and logs here
#   tpu/pod.sh status OPTIONS
#   tpu/pod.sh delete OPTIONS              the machines, and their request
#
# Which machines:
#   --name NAME        of the request, and of the machines
#   --zone ZONE        else $CLOUDSDK_COMPUTE_ZONE
#   --project PROJECT  else $CLOUDSDK_CORE_PROJECT
#   --type TYPE        accelerator type, such as v5litepod-8 or v5p-64
#   --version VERSION  runtime version, if not the usual one of the type
#   --slices N         so many machines of that type, joined over the network (1)
#   --spot             cheaper, and taken away at any time
#   --existing         NAME is a TPU VM that is there already: it is never created or deleted
# What runs:
#   --store gs://B/P   bucket folder that results are copied to every two minutes, and from where
#                      a preempted run goes on; without one, it begins again
#   --before COMMAND   run on every worker after setup, to copy a model there, say
#   --keep             up leaves the machines when it ends
# Patience, in seconds (but for --tries and --misses):
#   --wait 21600       for machines        --poll 30      between two looks
#   --patience 120     for one call        --misses 10    calls in a row that may fail
#   --tries 20         requests in all     --install 1800 for setup
# --dry-run prints the commands instead of sending them.
#
# COMMAND may hold {worker} and {workers}: each worker then runs alone, on its part of a study.
# Otherwise, several workers are the processes of one run: `--processes auto` is added.
#
# Ends with 0 (done), 2 (bad call), 4 (no machines in time), 5 (machines lost, and not to be had
# again), or as the command did: what failed is not tried again. Stopped by a signal, up and
# create delete their request first.
set -euo pipefail

LOST=90   # of follow: the machines are gone
NONE=91   # of create: there were none
usage() { sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//'; }
say() { echo "tpu/pod.sh: $*" >&2; }
die() { say "$*"; exit 2; }

# ---- words ---------------------------------------------------------------------------------
[ $# -gt 0 ] || { usage >&2; exit 2; }
action=$1; shift
case $action in
  -h|--help|help) usage; exit 0 ;;
  up|create|setup|run|follow|fetch|status|delete) ;;
  *) die "no action '$action'; there are up, create, setup, run, follow, fetch, status and delete." ;;
esac

name='' zone=${CLOUDSDK_COMPUTE_ZONE:-} project=${CLOUDSDK_CORE_PROJECT:-} type='' version='' slices=1
store='' before='' spot='' existing='' keep='' dry=''
wait=21600 poll=30 patience=120 misses=10 tries=20 install=1800
while [ $# -gt 0 ]; do
  case $1 in
    -h|--help) usage; exit 0 ;;
    --spot) spot=1; shift ;;
    --existing) existing=1; shift ;;
    --keep) keep=1; shift ;;
    --dry-run) dry=1; shift ;;
    --) shift; break ;;
    --name|--zone|--project|--type|--version|--slices|--store|--before|--wait|--poll|--patience|--misses|--tries|--install)
      [ $# -ge 2 ] || die "option $1 needs a value."
      printf -v "${1#--}" '%s' "$2"; shift 2 ;;
    *) die "no option '$1'; see tpu/pod.sh --help." ;;
  esac
done
for option in name zone project; do
  [ -n "${!option}" ] || die "option --$option is missing."
done
[[ $name =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
  die "--name is '$name', expected lower-case letters, digits and dashes, beginning with a letter."
for option in slices wait poll patience misses tries install; do
  [[ ${!option} =~ ^[1-9][0-9]*$ ]] || die "--$option is '${!option}', expected a number from 1 on."
done
[[ -z $store || $store =~ ^gs://[^/]+/. ]] || die "--store is '$store', expected gs://BUCKET/FOLDER."
store=${store%/}
[ -z "$existing" ] || [ "$slices" -eq 1 ] || die "--existing names one TPU VM, got --slices $slices."
if [ "$action" = up ] || [ "$action" = run ]; then
  [ $# -gt 0 ] || die "nothing to run; put a command after --, such as: -- study two-hop --preset full"
  [ "$1" != jaxlora ] || shift
else
  [ $# -eq 0 ] || die "$action takes no command, got: $*"
fi
if [ -z "$existing" ] && { [ "$action" = up ] || [ "$action" = create ]; }; then
  case $type in
    '') die "option --type is missing, such as v5litepod-8, v5p-64 or v6e-8." ;;
    *:*) die "--type is '$type', a topology as \`jaxlora plan\` takes it; Cloud TPU has types such as v5litepod-8 (v5e:2x4) and v5p-64 (v5p:2x4x4)." ;;
    v5e-*) die "--type is '$type'; Cloud TPU calls it v5litepod-${type#v5e-}." ;;
    v5litepod-[1-9]*) : "${version:=v2-alpha-tpuv5-lite}" ;;
    v5p-[1-9]*) : "${version:=v2-alpha-tpuv5}" ;;
    v6e-[1-9]*) : "${version:=v2-alpha-tpuv6e}" ;;
    v[234]-[1-9]*) : "${version:=tpu-ubuntu2204-base}" ;;
    *) [ -n "$version" ] || die "--type is '$type'; known are v2-, v3-, v4-, v5litepod-, v5p- and v6e- with a number of chips or cores. For another one, give --version." ;;
  esac
fi
if [ -z "$dry" ]; then
  for program in gcloud timeout; do
    command -v "$program" > /dev/null || die "$program is not installed."
  done
fi

# ---- calls ---------------------------------------------------------------------------------
where=(--zone "$zone" --project "$project")
if [ "$slices" -eq 1 ]; then nodes=("$name"); else
  nodes=(); for ((i = 0; i < slices; i++)); do nodes+=("$name-$i"); done
fi
# In the background, as a signal is handled while we wait, and not while a program runs.
for_seconds() {
  local seconds=$1 child; shift
  if [ -n "$dry" ]; then printf '%q ' "$@"; echo; return; fi
  timeout "$seconds" "$@" < /dev/null & child=$!
  wait "$child"
}
call() { for_seconds "$patience" "$@"; }
ask() { timeout "$patience" "$@" < /dev/null 2>&1; }
tpu() { echo "gcloud compute tpus $1"; }
pause() { [ -n "$dry" ] || { sleep "$1" & wait $!; }; }
on() { # NODE WORKER SECONDS COMMAND
  for_seconds "$3" gcloud compute tpus tpu-vm ssh "$1" "${where[@]}" --worker="$2" --command "$4"
}
state() { # of the request, or of an existing machine; GONE, or UNKNOWN if nobody answers
  local kind=queued-resources field=state.state text
  [ -z "$existing" ] || { kind=tpu-vm field=state; }
  [ -z "$dry" ] || { echo ACTIVE; return; }
  if text=$(ask gcloud compute tpus $kind describe "$name" "${where[@]}" --format "value($field)"); then
    # Notes of gcloud come before the answer.
    text=$(tail -n 1 <<< "$text"); echo "${text/READY/ACTIVE}"
  elif [[ $text == *NOT_FOUND* ]]; then echo GONE; else echo UNKNOWN; fi
}
count() { # workers of a node
  if [ -n "$dry" ]; then echo 1; return; fi
  ask gcloud compute tpus tpu-vm describe "$1" "${where[@]}" --format 'value(networkEndpoints.len())' | tail -n 1
}

# ---- the request ---------------------------------------------------------------------------
requested='' # while there is a request that nobody else would delete
delete() {
  local try
  [ -z "$existing" ] || { say "$name was there before: it is not deleted."; return 0; }
  for try in 1 2 3; do
    # Waits until it is gone: a request of the same name can be made again only then.
    if for_seconds 900 gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet ||
       [ "$(state)" = GONE ]; then requested=''; return 0; fi
    [ "$try" = 3 ] || pause "$poll"
  done
  say "cannot delete the request $name, which may cost money: tpu/pod.sh delete --name $name --zone $zone --project $project"
  return 1
}
finish() {
  local code=$?
  local children
  trap '' INT TERM HUP; trap - EXIT
  children=$(jobs -p)
  # shellcheck disable=SC2086 # one word a child
  [ -z "$children" ] || kill $children 2>/dev/null || true
  [ -z "$requested" ] || { say "deleting the request $name."; delete || code=1; }
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT; trap 'exit 143' TERM; trap 'exit 129' HUP

create() {
  local there waited=0 options=(--accelerator-type "$type" --runtime-version "$version" --valid-until-duration "${wait}s")
  if [ -n "$existing" ]; then
    there=$(state); [ "$there" = ACTIVE ] || die "there is no TPU VM $name at work: it is $there."; return
  fi
  if [ "$slices" -eq 1 ]; then options+=(--node-id "$name"); else options+=(--node-count "$slices" --node-prefix "$name"); fi
  [ -z "$spot" ] || options+=(--spot)
  if [ -n "$dry" ]; then there=GONE; else there=$(state); fi
  case $there in
    GONE) ;;
    SUSPENDED|FAILED) say "an old request $name is $there; it is deleted first."; delete || exit 1 ;;
    UNKNOWN) say "gcloud cannot be asked for $name; are you logged in, and is $project right?"; exit 2 ;;
    *) die "a request $name is there already ($there); go on with it by run and follow, or delete it." ;;
  esac
  requested=1
  call gcloud compute tpus queued-resources create "$name" "${where[@]}" "${options[@]}" || {
    say "the request $name was refused; see above."; exit 2; }
  while :; do
    there=$(state)
    case $there in
      ACTIVE) return ;;
      FAILED|SUSPENDED|SUSPENDING|GONE) say "the request $name is $there."; delete || exit 1; return "$NONE" ;;
    esac
    [ "$waited" -lt "$wait" ] || { say "no machines in $wait s: the request $name is $there still."; exit 4; }
    pause "$poll"; waited=$((waited + poll))
  done
}

# shellcheck source=tpu/workers.sh
source "$(dirname "$0")/workers.sh"

up() {
  local try code lost=''
  [ -z "$spot" ] || [ -n "$store" ] || say "no --store: what a preempted machine has written is lost, and the run begins again."
  for ((try = 1; try <= tries; try++)); do
    code=0
    { create && setup && start "$@" && follow; } || code=$?
    case $code in
      "$LOST"|"$NONE"|75) # 75: jaxlora was told to stop, as a machine is before it is taken
        [ -z "$existing" ] || { say "the run on the TPU VM $name is lost."; exit 5; }
        say "machines lost, or not to be had (request $try of $tries); deleted, and requested again."
        [ -z "$requested" ] || delete || exit 1
        pause "$poll" ;;
      *) break ;;
    esac
  done
  [ "$try" -le "$tries" ] || { say "machines were lost $tries times."; exit 5; }
  for try in 1 2 3; do
    if fetch; then break; fi
    [ "$try" -lt 3 ] || { say "results could not be fetched${store:+; they are in $store}."; lost=1; }
    pause "$poll"
  done
  if [ -n "$lost" ] && [ "$code" -eq 0 ] && [ -z "$store" ]; then
    say "the machines are kept, as nothing else has the results; they cost money until: tpu/pod.sh fetch, and delete, --name $name --zone $zone --project $project"
    keep=1 code=1
  fi
  if [ -n "$keep" ]; then requested=''; else delete || exit 1; fi
  exit "$code"
}

case $action in
  up) up "$@" ;;
  create) code=0; create || code=$?; [ "$code" -ne "$NONE" ] || exit 4; requested='' ;;
  setup) setup || { code=$?; [ "$code" -ne "$LOST" ] || code=5; exit "$code"; } ;;
  run) start "$@" || { say "not started on every worker; see above."; exit 5; } ;;
  follow) code=0; follow || code=$?; [ "$code" -ne "$LOST" ] || { say "the machines are gone."; exit 5; }; exit "$code" ;;
  fetch) fetch ;;
  status) state ;;
  delete) delete ;;
esac
