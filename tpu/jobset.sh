#!/usr/bin/env bash
# Prints a JobSet for TPUs on GKE; `kubectl apply -f -` takes it.
#
#   tpu/jobset.sh --name lora --image IMAGE --accelerator tpu-v5p-slice --topology 2x4x4 \
#       --hosts 8 --chips 4 --claim results -- train --model /results/model --data a.jsonl ...
#
#   --name         of the JobSet
#   --image        with jaxlora[tpu] and its command on the path
#   --accelerator  as node pools have it: tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice
#   --topology     of a slice, such as 2x4 or 2x4x4
#   --hosts        machines of a slice      --chips   of one machine
#   --slices       (1)                      --restarts after a lost machine (20)
#   --claim        PersistentVolumeClaim for results: the working folder, kept between restarts
#
# The cluster needs JobSet (kubernetes-sigs/jobset). The command's own failure is not tried again.
set -euo pipefail
usage() { sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//'; }
die() { echo "tpu/jobset.sh: $*" >&2; exit 2; }

name='' image='' accelerator='' topology='' hosts='' chips='' claim='' slices=1 restarts=20
while [ $# -gt 0 ]; do
  case $1 in
    -h|--help) usage; exit 0 ;;
    --[a-z]*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --) shift; break ;;
    --name|--image|--accelerator|--topology|--hosts|--chips|--slices|--restarts|--claim)
      [ $# -ge 2 ] && [ "$2" != -- ] || die "option $1 needs a value."
      printf -v "${1#--}" '%s' "$2"; shift 2 ;;
    *) die "no option '$1'; see tpu/jobset.sh --help." ;;
  esac
done
for option in name image accelerator topology hosts chips claim; do
  [ -n "${!option}" ] || die "option --$option is missing."
done
[[ $name =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
  die "--name is '$name', expected lower-case letters, digits and dashes, beginning with a letter."
[[ $claim =~ ^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$ ]] ||
  die "--claim is '$claim', expected lower-case letters, digits, dashes and dots."
[[ $accelerator =~ ^tpu[-a-z0-9]+$ ]] ||
  die "--accelerator is '$accelerator', expected what node pools are labelled with: tpu-v5-lite-podslice, tpu-v5p-slice or tpu-v6e-slice."
[[ $image =~ ^[-._/:@A-Za-z0-9]+$ ]] || die "--image is '$image', expected REGISTRY/NAME:TAG."
[[ $topology =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] || die "--topology is '$topology', expected chips along each axis, such as 2x4 or 2x4x4."
for option in hosts chips slices restarts; do
  [[ ${!option} =~ ^[1-9][0-9]*$ || $option${!option} = restarts0 ]] ||
    die "--$option is '${!option}', expected a number from 1 on."
done
total=$((${topology//x/*}))
[ $((hosts * chips)) -eq "$total" ] || die "--topology $topology has $total chips, got $hosts hosts of $chips."
[ "${1:-}" != jaxlora ] || shift
[ $# -gt 0 ] || die "nothing to run; put a command after --, such as: -- train --model DIR ..."
[[ $* != *\{worker* ]] || die "a JobSet is one run of all hosts, and has no {worker}; tpu/pod.sh and tpu/slurm.sh do."
[ $((hosts * slices)) -eq 1 ] || [[ " $* " == *" --processes"[\ =]* ]] || set -- "$@" --processes auto

words=''
for word in "$@"; do
  word=${word//\\/\\\\} word=${word//\"/\\\"} word=${word//$'\n'/\\n}
  word=${word//$'\t'/\\t}
  words+=", \"${word//\$/\$\$}\"" # $(NAME) would be a variable of the pod
done
cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: $restarts
    rules:
      - action: FailJobSet # what the command itself refused
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: slice
      replicas: $slices
      template:
        spec:
          parallelism: $hosts
          completions: $hosts
          completionMode: Indexed
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes: {containerName: jaxlora, operator: In, values: [1, 2]}
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 120 # for a last checkpoint
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: $accelerator
                cloud.google.com/gke-tpu-topology: $topology
              containers:
                - name: jaxlora
                  image: $image
                  command: ["jaxlora"$words]
                  workingDir: /results
                  resources:
                    limits: {google.com/tpu: $chips}
                  volumeMounts:
                    - {name: results, mountPath: /results}
              volumes:
                - name: results
                  persistentVolumeClaim: {claimName: "$claim"}
YAML
