# shellcheck shell=bash
# What tpu/pod.sh does on the workers: install, start, follow, fetch. It has set the variables.
# shellcheck disable=SC2154 # where, nodes, store ... are of pod.sh

members=() # "node worker" of every worker, in order
find_members() {
  local node i try
  members=()
  for node in "${nodes[@]}"; do
    answer=1
    for ((try = 1; ; try++)); do
      [ -z "$dry" ] || break
      ask gcloud compute tpus tpu-vm describe "$node" "${where[@]}" --format 'value(networkEndpoints.len())' &&
        [[ $answer =~ ^[1-9][0-9]*$ ]] && break
      say "gcloud does not say how many workers $node has (${notes##*$'\n'})."
      ! lost && [ "$try" -lt "$misses" ] || return 1
      pause "$poll"
    done
    for ((i = 0; i < answer; i++)); do members+=("$node $i"); done
  done
}
everywhere() { # SECONDS COMMAND: on all nodes at once
  local node children=() code=0
  for node in "${nodes[@]}"; do on "$node" all "$1" "$2" & children+=($!); done
  for node in "${children[@]}"; do wait "$node" || code=1; done
  return $code
}
copy() { # FILE: into the home of every worker
  local node
  for node in "${nodes[@]}"; do
    call gcloud compute tpus tpu-vm scp "$1" "$node:${1##*/}" "${where[@]}" --worker=all || return 1
  done
}
pack() { # this checkout, as it was committed last
  local top
  top=$(cd "$(dirname "$0")/.." && pwd)
  for_seconds 120 git -C "$top" archive --prefix=jaxlora/ --output "$scratch/jaxlora.tar.gz" HEAD ||
    die "$top is not a git checkout."
}
setup() {
  local try
  # The Python of the usual images is too old: uv brings its own. The worker expands $HOME.
  # shellcheck disable=SC2016
  local steps='tar xzf jaxlora.tar.gz && python3 -m pip install -q --user uv && cd jaxlora && export PATH=$HOME/.local/bin:$PATH && uv venv -q --clear --python 3.12 .venv && uv pip install -q -e ".[tpu]"'
  [ -z "$before" ] || steps+=" && {"$'\n'"$before"$'\n'"}"
  for ((try = 1; ; try++)); do
    copy "$scratch/jaxlora.tar.gz" && everywhere "$install" "$steps" && break
    ! lost || return "$LOST"
    [ "$try" -lt "$misses" ] || { say "setup failed $try times; see above."; return 1; }
    pause "$poll" # a new machine may not let us in at once
  done
}
launch() { # MEMBER COMMAND: until it is taken, or the machines are gone
  local try code
  for ((try = 1; ; try++)); do
    code=0; on "${1% *}" "${1#* }" "$patience" "$2" || code=$?
    case $code in
      0) return ;;
      66) say "${1% *}, worker ${1#* }, has no jaxlora; tpu/pod.sh setup installs it."; return 2 ;;
    esac
    ! lost || return "$LOST"
    [ "$try" -lt "$misses" ] || { say "${1% *}, worker ${1#* }, took no command in $try calls."; return "$LOST"; }
    pause "$poll"
  done
}
stored() { # JOB FOLDER: the job between a copy from the bucket and copies to it
  local rsync='gcloud storage rsync -q --recursive' sync
  sync="$rsync --delete-unmatched-destination-objects results $2 >> sync.log 2>&1"
  # What is not here in full must not be copied back: that would empty the bucket.
  cat <<< "mkdir -p results
for try in 1 2 3; do
  $rsync $2 results > restore.log 2>&1 && break
  grep -qE 'matched no objects|Did not find existing container' restore.log && break # the first time
  [ \$try -lt 3 ] || { cat restore.log; echo '$2 could not be copied; nothing was run.'; } >> run.log
  [ \$try -lt 3 ] || { echo 75 > run.code; exit; }
  sleep 30
done
(while sleep 120; do $sync; done) & copier=\$!
$1
kill \$copier; $sync"
}
start() { # WORDS: on each worker, in a session of its own, which outlives a lost connection
  local alone='' only='' i=0 member word words job children=() code=0 worst=0
  [[ $* != *\{worker* ]] || alone=1
  find_members || return "$LOST"
  [ -n "$alone" ] || [ "${#members[@]}" -eq 1 ] || [[ " $* " == *" --processes"[\ =]* ]] || set -- "$@" --processes auto
  for member in "${members[@]}"; do
    words=''
    for word in "$@"; do
      word=${word//\{workers\}/${#members[@]}}
      words+=$(printf '%q ' "${word//\{worker\}/$i}")
    done
    # A worker of a slice that runs alone must not wait for the chips of the others.
    [ -z "$alone" ] || [ "${#members[@]}" -eq 1 ] || only='TPU_PROCESS_BOUNDS=1,1,1 TPU_CHIPS_PER_PROCESS_BOUNDS=2,2,1 '
    job="$only.venv/bin/jaxlora $words>> run.log 2>&1; code=\$?"
    [ -z "$store" ] || { [ -z "$alone" ] && [ "$i" -gt 0 ]; } || job=$(stored "$job" "$store/worker-$i")
    job+="; echo \$code > run.code"
    # A job that runs already is left alone.
    launch "$member" "[ -x jaxlora/.venv/bin/jaxlora ] || exit 66; cd jaxlora && { [ -e run.pid ] && kill -0 \$(cat run.pid) 2>/dev/null; } || { rm -f run.code run.log; setsid nohup bash -c $(printf %q "$job") < /dev/null > /dev/null 2>&1 & echo \$! > run.pid; }" & children+=($!)
    i=$((i + 1))
  done
  for member in "${children[@]}"; do
    code=0; wait "$member" || code=$?
    [ "$worst" = "$LOST" ] || [ "$code" -eq 0 ] || worst=$code
  done
  return "$worst"
}
blame() { # MEMBER: sets member and code to those of another worker that failed by itself
  local other
  for other in "${members[@]}"; do
    [ "$other" != "$1" ] || continue
    ask gcloud compute tpus tpu-vm ssh "${other% *}" "${where[@]}" --worker="${other#* }" --command 'cat jaxlora/run.code' || continue
    case $answer in ''|*[!0-9]*|0|75) ;; *) member=$other code=$answer; return ;; esac
  done
}
follow() { # 0, the code of the command, or LOST
  local member text seen failed code head
  [ -z "$dry" ] || { on "${nodes[0]}" 0 "$patience" 'tail -F jaxlora/run.log'; return; }
  [ "${#members[@]}" -gt 0 ] || find_members || return "$LOST"
  for member in "${members[@]}"; do
    seen=0 failed=0
    while :; do
      if ask gcloud compute tpus tpu-vm ssh "${member% *}" "${where[@]}" --worker="${member#* }" --command \
          "cd jaxlora && alive=\$([ -e run.pid ] && { kill -0 \$(cat run.pid) 2>/dev/null && echo - || echo dead; } || echo none) && code=\$(cat run.code 2>/dev/null || echo \$alive) && size=\$(cat run.log 2>/dev/null | wc -c) && echo \"@ \$code \$size\" && cat run.log 2>/dev/null | head -c \$size | tail -c +$((seen + 1))" &&
         [[ $answer == *"@ "* ]]; then
        failed=0
        text="@ ${answer#*@ }" # without what a shell says on its start
        head=${text%%$'\n'*}
        read -r _ code seen <<< "$head"
        [ "$text" = "$head" ] || printf '%s\n' "${text#*$'\n'}"
        [ "$code" = - ] || break
      else
        failed=$((failed + 1))
        ! lost || return "$LOST"
        [ "$failed" -lt "$misses" ] || { say "no answer of ${member% *}, worker ${member#* }, to $failed calls."; return "$LOST"; }
      fi
      pause "$poll"
    done
    [ "$code" != none ] || { say "nothing was started on ${member% *}, worker ${member#* }; tpu/pod.sh run does."; return 2; }
    # Without a code: the machine was restarted, or somebody ended the job.
    [ "$code" != dead ] || { say "the job on ${member% *}, worker ${member#* }, is gone without an end."; return "$LOST"; }
    # 75 is also of a process whose others ended: what ended these counts.
    [ "$code" -ne 75 ] || blame "$member"
    [ "$code" -eq 0 ] || { say "\`jaxlora\` ended with $code on ${member% *}, worker ${member#* }."; return "$code"; }
  done
}
has_results() { # MEMBER: 0, 1 if it has none, or 2 if it does not answer
  [ -z "$dry" ] || return 0
  ask gcloud compute tpus tpu-vm ssh "${1% *}" "${where[@]}" --worker="${1#* }" --command \
    '[ -d jaxlora/results ] && echo results || echo nothing' || return 2
  [ "${answer##*$'\n'}" = results ]
}
fetch() {
  local member code i=0
  [ "${#members[@]}" -gt 0 ] || find_members || return 1
  for member in "${members[@]}"; do
    # Of workers of one run only the first has results; of those that run alone, each.
    code=0; has_results "$member" || code=$?
    if [ "$code" -eq 0 ]; then
      for_seconds 1800 gcloud compute tpus tpu-vm scp --recurse "${member% *}:jaxlora/results" . "${where[@]}" --worker="${member#* }" || return 1
    elif [ "$code" -eq 2 ]; then say "${member% *}, worker ${member#* }, does not answer (${notes##*$'\n'})."; return 1
    elif [ "$i" -eq 0 ]; then say "${member% *}, worker ${member#* }, has no results."; return 1; fi
    call gcloud compute tpus tpu-vm scp "${member% *}:jaxlora/run.log" "run-$name-$i.log" "${where[@]}" --worker="${member#* }" || true
    i=$((i + 1))
  done
}
