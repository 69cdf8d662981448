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
    --spot=*|--existing=*|--keep=*|--dry-run=*) die "option ${1%%=*} takes no value." ;;
    --[a-z]*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --spot) spot=1; shift ;;
    --existing) existing=1; shift ;;
    --keep) keep=1; shift ;;
    --dry-run) dry=1; shift ;;
    --) shift; break ;;
    --name|--zone|--project|--type|--version|--slices|--store|--before|--wait|--poll|--patience|--misses|--tries|--install)
      [ $# -ge 2 ] && [ "$2" != -- ] || die "option $1 needs a value."
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
[[ -z $store || $store =~ ^gs://[-._a-z0-9]+/[-._/=+@A-Za-z0-9]+$ ]] ||
  die "--store is '$store', expected gs://BUCKET/FOLDER, of letters, digits, dots, dashes and underscores."
store=${store%/}
[ -z "$existing" ] || [ "$slices" -eq 1 ] || die "--existing names one TPU VM, got --slices $slices."
[ -z "$existing" ] || [ -z "$spot" ] || die "--existing names a TPU VM that is there, which --spot does not change."
if [ "$action" = up ] || [ "$action" = run ]; then
  [ "${1:-}" != jaxlora ] || shift
  [ $# -gt 0 ] || die "nothing to run; put a command after --, such as: -- study two-hop --preset full"
else
  [ $# -eq 0 ] || die "$action takes no command, got: $*"
fi
if [ -z "$existing" ] && { [ "$action" = up ] || [ "$action" = create ]; }; then
  [[ -n $version || ! $type =~ -[1-9] || $type =~ -[1-9][0-9]*$ ]] || die "--type is '$type', expected a type and a number, such as v5p-64."
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
  for program in gcloud timeout git; do
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
scratch=$(mktemp -d)
ask() { # sets answer, and notes: what gcloud says beside it, such as why it gives none
  local file code=0
  file=$(mktemp "$scratch/XXXXXX")
  timeout "$patience" "$@" < /dev/null > "$file" 2> "$file.notes" & wait $! || code=$?
  answer=$(< "$file") notes=$(< "$file.notes")
  [ "$code" -ne 124 ] || notes="no answer in $patience s"
  rm -f "$file" "$file.notes"
  return "$code"
}
pause() { [ -n "$dry" ] || { sleep "$1" & wait $!; }; }
on() { # NODE WORKER SECONDS COMMAND
  for_seconds "$3" gcloud compute tpus tpu-vm ssh "$1" "${where[@]}" --worker="$2" --command "$4"
}
look() { # sets there: the state of the request, or of an existing machine; GONE, or UNKNOWN
  local kind=queued-resources field=state.state
  [ -z "$existing" ] || { kind=tpu-vm field=state; }
  if [ -n "$dry" ]; then there=ACTIVE
  elif ask gcloud compute tpus $kind describe "$name" "${where[@]}" --format "value($field)"; then
    there=${answer/READY/ACTIVE}
  elif [[ $notes == *NOT_FOUND* ]]; then there=GONE; else there=UNKNOWN; fi
}
lost() { look; case $there in ACTIVE|UNKNOWN) return 1 ;; esac; }

# ---- the request ---------------------------------------------------------------------------
requested='' # while there is a request that nobody else would delete
creating=''  # while it is being made
delete() {
  local try
  [ -z "$existing" ] || { say "$name was there before: it is not deleted."; return 0; }
  for try in 1 2 3; do
    # Waits until it is gone: a request of the same name can be made again only then.
    if for_seconds 900 gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet ||
       { look; [ "$there" = GONE ]; }; then requested=''; return 0; fi
    [ "$try" = 3 ] || pause "$poll"
  done
  say "cannot delete the request $name, which may cost money: tpu/pod.sh delete --name $name --zone $zone --project $project"
  return 1
}
finish() {
  local code=$?
  local children
  trap '' INT TERM HUP; trap - EXIT
  # A request whose call is cut short may still be made, after it was looked for.
  [ -z "$creating" ] || wait
  children=$(jobs -p)
  # shellcheck disable=SC2086 # one word a child
  [ -z "$children" ] || kill $children 2>/dev/null || true
  [ -z "$requested" ] || { say "deleting the request $name."; delete || code=1; }
  rm -rf "$scratch"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT; trap 'exit 143' TERM; trap 'exit 129' HUP

create() {
  local code=0 seen='' waited=0 begun=$SECONDS options=(--accelerator-type "$type" --runtime-version "$version" --valid-until-duration "${wait}s")
  if [ -n "$existing" ]; then
    look; [ "$there" = ACTIVE ] || die "there is no TPU VM $name at work: it is $there."; return
  fi
  if [ "$slices" -eq 1 ]; then options+=(--node-id "$name"); else options+=(--node-count "$slices" --node-prefix "$name"); fi
  [ -z "$spot" ] || options+=(--spot)
  options=(gcloud compute tpus queued-resources create "$name" "${where[@]}" "${options[@]}")
  [ -z "$dry" ] || { call "${options[@]}"; requested=1; return; }
  look
  case $there in
    GONE) ;;
    SUSPENDED|FAILED|DELETING) say "an old request $name is $there; it is deleted first."; delete || exit 1 ;;
    UNKNOWN) die "gcloud cannot be asked for $name (${notes##*$'\n'}); are you logged in, and is the project $project right?" ;;
    *) die "a request $name is there already ($there); go on with it by run and follow, or delete it." ;;
  esac
  requested=1 creating=1
  ask "${options[@]}" || code=$?
  creating=''
  [ -z "$notes" ] || echo "$notes" >&2
  if [ "$code" -ne 0 ]; then
    [[ $notes != *ALREADY_EXISTS* ]] || { requested=''; die "a request or machine $name is there already, and is left alone; give another --name."; }
    say "the request $name was refused; see above."; exit 2
  fi
  while :; do
    look
    [ "$there" = "$seen" ] || say "the request $name is $there."
    seen=$there
    case $there in
      ACTIVE) return ;;
      FAILED|SUSPENDED|SUSPENDING|DELETING|GONE) explain; delete || exit 1; return "$NONE" ;;
    esac
    # By the clock too: gcloud may take its time to answer.
    [ "$waited" -lt "$wait" ] && [ $((SECONDS - begun)) -lt "$wait" ] || {
      say "no machines in $wait s: the request $name is $there still."; exit 4; }
    pause "$poll"; waited=$((waited + poll))
  done
}
explain() { # why a request failed, if it says so
  [ "$there" = FAILED ] || return 0
  ask gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format 'value(state.failedData.error.message)' || return 0
  [ -z "$answer" ] || say "it says: $answer"
}

# shellcheck source=tpu/workers.sh
source "$(dirname "$0")/workers.sh"

up() {
  local try code begun missing=''
  pack # before anything costs money
  [ -z "$spot" ] || [ -n "$store" ] || say "no --store: what a preempted machine has written is lost, and the run begins again."
  for ((try = 1; try <= tries; try++)); do
    code=0 begun=''
    { create && setup && start "$@" && begun=1 && follow; } || code=$?
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
  for ((try = 1; ; try++)); do
    if [ -z "$begun" ] || fetch; then break; fi
    if lost || [ "$try" -eq 3 ]; then missing=1; break; fi
    pause "$poll"
  done
  if [ -n "$missing" ]; then
    say "results could not be fetched${store:+; they are in $store}."
    if [ "$code" -ne 0 ] || [ -n "$store" ]; then :
    elif [[ $there == @(ACTIVE|UNKNOWN) ]]; then
      say "the machines are kept, as nothing else has the results; they cost money until: tpu/pod.sh fetch, and delete, --name $name --zone $zone --project $project"
      keep=1 code=1
    else say "the machines were taken with them (the request is $there): the run must be begun again."; code=5; fi
  fi
  if [ -n "$keep" ]; then requested=''; else delete || exit 1; fi
  exit "$code"
}

case $action in
  up) up "$@" ;;
  create) code=0; create || code=$?; [ "$code" -ne "$NONE" ] || exit 4; requested='' ;;
  setup) pack; setup || { code=$?; [ "$code" -ne "$LOST" ] || { say "the machines are gone."; code=5; }; exit "$code"; } ;;
  run) code=0; start "$@" || code=$?; [ "$code" -eq 0 ] || { say "not started on every worker; see above."; [ "$code" -eq 2 ] || code=5; exit "$code"; } ;;
  follow) code=0; follow || code=$?; [ "$code" -ne "$LOST" ] || { say "the machines are gone."; exit 5; }; exit "$code" ;;
  fetch) fetch ;;
  status) look; echo "$there"; [ "$there" != UNKNOWN ] || die "gcloud cannot be asked for $name (${notes##*$'\n'}); are you logged in, and is the project $project right?" ;;
  delete) delete ;;
esac
