#!/usr/bin/env bash
# One Cloud TPU VM (a single host, for example v5litepod-8): create, set up, run a study, fetch, delete.
#
#   tpu/vm.sh create --name NAME --zone ZONE --project PROJECT [--type v5litepod-8] [--version v2-alpha-tpuv5-lite]
#   tpu/vm.sh setup  --name NAME --zone ZONE --project PROJECT
#   tpu/vm.sh run    --name NAME --zone ZONE --project PROJECT -- study two-hop --preset full
#   tpu/vm.sh fetch  --name NAME --zone ZONE --project PROJECT
#   tpu/vm.sh delete --name NAME --zone ZONE --project PROJECT
#
# `run` is safe to repeat: the study goes on where it stopped. --dry-run prints the commands instead.
set -euo pipefail

usage() { sed -n '2,10s/^# \{0,1\}//p' "$0"; }
die() { echo "tpu/vm.sh: $*" >&2; exit 2; }

[ $# -gt 0 ] || { usage; exit 2; }
action=$1; shift
case $action in
  -h|--help) usage; exit 0 ;;
  create|setup|run|fetch|delete) ;;
  *) die "no action '$action'; there are create, setup, run, fetch and delete." ;;
esac

name='' zone='' project='' type=v5litepod-8 version=v2-alpha-tpuv5-lite dry=''
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry=1; shift ;;
    --) shift; break ;;
    --name|--zone|--project|--type|--version)
      [ $# -ge 2 ] || die "option $1 needs a value."
      printf -v "${1#--}" '%s' "$2"; shift 2 ;;
    *) die "no option '$1'; see tpu/vm.sh --help." ;;
  esac
done
for option in name zone project; do
  [ -n "${!option}" ] || die "option --$option is missing."
done

do_it() { if [ -n "$dry" ]; then printf '%q ' "$@"; echo; else "$@"; fi; }
where=(--zone "$zone" --project "$project")
tpu() { do_it gcloud compute tpus tpu-vm "$1" "$name" "${where[@]}" "${@:2}"; }

case $action in
  create) tpu create --accelerator-type "$type" --version "$version" ;;
  setup)
    top=$(cd "$(dirname "$0")/.." && pwd)
    archive=$(mktemp -d)/jaxlora.tar.gz
    do_it git -C "$top" archive --prefix=jaxlora/ --output "$archive" HEAD
    do_it gcloud compute tpus tpu-vm scp "$archive" "$name:jaxlora.tar.gz" "${where[@]}"
    tpu ssh --command "tar xzf jaxlora.tar.gz && cd jaxlora && python3 -m venv .venv && .venv/bin/pip install -q -e '.[tpu]' && .venv/bin/jaxlora info" ;;
  run)
    [ $# -gt 0 ] || die "nothing to run; put a command after --, such as: -- study two-hop --preset full"
    # In a session of its own: the study outlives a lost connection.
    words=$(printf '%q ' "$@")
    tpu ssh --command "cd jaxlora && (setsid nohup .venv/bin/jaxlora $words >> run.log 2>&1 &) && sleep 2 && tail -n +1 run.log" ;;
  fetch) do_it gcloud compute tpus tpu-vm scp --recurse "$name:jaxlora/results" . "${where[@]}" ;;
  delete) tpu delete --quiet ;;
esac
