#!/usr/bin/env bash
#SBATCH --job-name=jaxlora
#SBATCH --output=jaxlora-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
# jaxlora under Slurm: one task a GPU (JAX gives each task one of them), and goes on when requeued.
#
#   sbatch --nodes 2 --ntasks-per-node 8 --gpus-per-node 8 tpu/slurm.sh train --model DIR ...
#   sbatch --ntasks 4 --gpus-per-task 1 tpu/slurm.sh study two-hop --share {worker}/{workers} \
#       --out results/part-{worker}
#
# Run it from the folder of the results, with jaxlora on the PATH. With {worker}, each task runs
# alone; otherwise all tasks are the processes of one run.
set -euo pipefail
RESTARTS=20 # of a job, at most
die() { echo "tpu/slurm.sh: $*" >&2; exit 2; }
case ${1:-} in
  -h|--help) sed -n '7,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
  '') die "nothing to run; put a command after it, such as: study two-hop --preset full" ;;
esac
[ -n "${SLURM_JOB_ID:-}" ] || die "not within a Slurm job; start it with sbatch."
[ -n "${SLURM_NTASKS:-}" ] || die "the job has no number of tasks; give sbatch --ntasks, or --nodes and --ntasks-per-node."
[[ $SLURM_NTASKS =~ ^[1-9][0-9]*$ ]] || die "SLURM_NTASKS is '$SLURM_NTASKS', expected a number of tasks."
[ "$1" != jaxlora ] || shift
[ $# -gt 0 ] || die "nothing to run; put a command after it, such as: study two-hop --preset full"
command -v jaxlora > /dev/null || die "jaxlora is not on the PATH; activate its environment first."

alone=''
[[ $* != *\{worker* ]] || alone=1
[ -n "$alone" ] || [ "$SLURM_NTASKS" -eq 1 ] || [[ " $* " == *" --processes"[\ =]* ]] || set -- "$@" --processes auto
# Each task puts its number into the words, and leaves the code of what must not be tried again:
# the others of its run end with 75 then, which is all that srun may tell.
failed=.jaxlora-$SLURM_JOB_ID.failed
rm -f "$failed"
# shellcheck disable=SC2016
task='
failed=$1; shift; words=()
for word in "$@"; do word=${word//\{workers\}/$SLURM_NTASKS}; words+=("${word//\{worker\}/$SLURM_PROCID}"); done
jaxlora "${words[@]}" & child=$!
trap "kill -TERM $child" TERM
code=0; wait "$child" || code=$?
while kill -0 "$child" 2>/dev/null; do code=0; wait "$child" || code=$?; done
case $code in 0|75) ;; *) echo "$code" > "$failed" ;; esac
exit "$code"'
srun bash -c "$task" jaxlora "$failed" "$@" & child=$!
# Slurm warns this script, and the script its tasks: they save, and end with 75.
trap 'kill -TERM "$child"' TERM
code=0
wait "$child" || code=$?
while kill -0 "$child" 2>/dev/null; do code=0; wait "$child" || code=$?; done
# What ended a task that runs alone stopped no other: these go on.
if [ -s "$failed" ] && { [ -z "$alone" ] || [ "$code" -ne 75 ]; }; then
  code=$(cat "$failed")
  echo "tpu/slurm.sh: a task ended with $code; see above." >&2
elif [ "$code" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -ge "$RESTARTS" ]; then
  echo "tpu/slurm.sh: stopped before the end, and requeued $RESTARTS times already; see above." >&2
elif [ "$code" -eq 75 ]; then
  echo "tpu/slurm.sh: stopped before the end; requeued." >&2
  scontrol requeue "$SLURM_JOB_ID"
fi
rm -f "$failed"
exit "$code"
