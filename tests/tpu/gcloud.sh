#!/usr/bin/env bash
# Stands for gcloud, uv, git and sleep in the tests of tpu/pod.sh, by the name it is called by.
# $FAKE holds a request, its workers (a folder each) and a bucket. Files there make trouble:
#   states     lines that describe gives in turn; the last one stays
#   workers    how many a node has (1)
#   preempted  the machines are gone
#   hang       ssh hangs; both until their request is deleted
#   refuse     create is refused
#   deaf       delete does not work
#   slow       what create asks for is there a while after the call, killed or not
#   exists     create finds a request of somebody else
#   denied     no request can be described
#   stuck      a description never comes
#   taken      the machines are gone once results are copied from them
#   lame       the number of a worker that lets nobody in
#   why        what a failed request says of itself
# and with a number, which is how often:
#   hidden     nobody says how many workers a node has
#   closed     nothing can be copied to machines
#   mute       no job can be started
#   shut       nothing can be copied from the bucket
#   torn       the results of the last worker cannot be copied from it
set -u
case ${0##*/} in
  sleep) exec /bin/sleep 0.1 ;;
  uv) [ "$1" = pip ] || { mkdir -p .venv/bin; cp "$FAKE/job" .venv/bin/jaxlora; }; exit ;;
  python3) exit ;;
  git) mkdir -p "$FAKE/jaxlora"; exec tar czf "$6" -C "$FAKE" jaxlora ;;
esac
printf '%s\n' "$*" >> "$FAKE/calls"
after() { # FLAG: its value, as FLAG VALUE or FLAG=VALUE
  local word last=''
  for word in "${words[@]}"; do
    [ "$last" != "$1" ] || printf '%s\n' "$word"
    [[ $word != "$1="* ]] || printf '%s\n' "${word#*=}"
    last=$word
  done
}
fails() { # NAME: once less from now on
  local times
  times=$(cat "$FAKE/$1" 2>/dev/null) && [ "$times" -gt 0 ] && echo $((times - 1)) > "$FAKE/$1"
}
words=("$@")
request=$FAKE/request
case "$*" in
  *"queued-resources create"*)
    [ ! -e "$FAKE/refuse" ] || { echo "ERROR: quota" >&2; exit 1; }
    [ ! -e "$FAKE/exists" ] || { touch "$request"; echo "ERROR: ALREADY_EXISTS: lora" >&2; exit 1; }
    [ ! -e "$FAKE/slow" ] || { (/bin/sleep 0.3; touch "$request") & touch "$FAKE/sent"; /bin/sleep 0.5; exit; }
    touch "$request" ;;
  *"queued-resources delete"*)
    [ ! -e "$FAKE/deaf" ] || { echo "ERROR: try later" >&2; exit 1; }
    rm -rf "$request" "$FAKE/preempted" "$FAKE/hang" "$FAKE"/machine-* ;;
  *"queued-resources describe"*|*"tpu-vm describe"*"value(state)"*)
    [ ! -e "$FAKE/stuck" ] || { touch "$FAKE/asked"; exec /bin/sleep 100; }
    [ ! -e "$FAKE/denied" ] || { echo "ERROR: PERMISSION_DENIED: not yours" >&2; exit 1; }
    [[ $* != *error* ]] || { cat "$FAKE/why" 2>/dev/null; exit; }
    [ -e "$request" ] || { echo "ERROR: NOT_FOUND: no such thing" >&2; exit 1; }
    if [ -e "$FAKE/preempted" ]; then echo SUSPENDED; exit; fi
    echo "a note of gcloud" >&2
    line=$(head -n 1 "$FAKE/states"); rest=$(tail -n +2 "$FAKE/states")
    [ -z "$rest" ] || echo "$rest" > "$FAKE/states"
    echo "$line"
    echo "updates of gcloud are there" >&2 ;;
  *"tpu-vm describe"*)
    ! fails hidden || { echo "ERROR: 503" >&2; exit 1; }
    cat "$FAKE/workers"
    echo "updates of gcloud are there" >&2 ;;
  *"tpu-vm ssh"*)
    [ ! -e "$FAKE/preempted" ] && [ -e "$request" ] || exit 255
    [ ! -e "$FAKE/hang" ] || exec /bin/sleep 30
    [[ $* != *setsid* ]] || ! fails mute || exit 255
    which=$(after --worker)
    [ "$which" != "$(cat "$FAKE/lame" 2>/dev/null)" ] || exit 255
    [ "$which" != all ] || which=$(seq 0 $(($(cat "$FAKE/workers") - 1)))
    for i in $which; do
      machine=$FAKE/machine-$5-$i; mkdir -p "$machine"; cd "$machine" || exit 1
      HOME=$machine bash -c "$(after --command)" || exit $?
    done ;;
  *"tpu-vm scp"*)
    [ ! -e "$FAKE/preempted" ] || exit 255
    from=$5 to=$6
    [ "$from" != --recurse ] || { from=$6 to=$7; }
    if [[ $to == *:* ]]; then
      ! fails closed || exit 1
      for ((i = 0; i < $(cat "$FAKE/workers"); i++)); do
        mkdir -p "$FAKE/machine-${to%%:*}-$i"; cp "$from" "$FAKE/machine-${to%%:*}-$i/${to#*:}"
      done
    else
      [[ ! -e $FAKE/taken || $* != *"--recurse"* ]] || { touch "$FAKE/preempted"; exit 255; }
      [[ "$*" != *"--recurse"*"--worker=$(($(cat "$FAKE/workers") - 1))"* ]] || ! fails torn || exit 1
      cp -r "$FAKE/machine-${from%%:*}-$(after --worker)/${from#*:}" "$to"
    fi ;;
  *"storage rsync"*)
    from=${words[-2]} to=${words[-1]}
    from=${from/gs:\//$FAKE/bucket} to=${to/gs:\//$FAKE/bucket}
    if [[ ${words[-2]} == gs:* ]] && fails shut; then echo "ERROR: 503" >&2; exit 1; fi
    [ -d "$from" ] || { echo "ERROR: Did not find existing container at: $from" >&2; exit 1; }
    mkdir -p "$to"; cp -r "$from/." "$to" ;;
esac
