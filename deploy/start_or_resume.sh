#!/usr/bin/env bash
# Start a sweep on a Ray cluster, or go on with it where its folder has one: the same line for both.
#   export FOLDER=/shared/fashion-1 MLFLOW_TRACKING_URI=http://mlflow.example.org:5000
#   deploy/start_or_resume.sh +sweep=fashion budget.trials=200 executor.address=auto
# FOLDER holds this sweep alone. When it goes on, budget.* and executor.* may be others than before. Nobody else may write
# there: --trust runs the code that its journal names, which may be of your own.
# GPUS=8 asks the autoscaler of a cluster that has one for eight: executor=ray uses the nodes there are, and asks for none.
set -euo pipefail
: "${FOLDER:?set it to the folder of this sweep}"
place=(tracking.dir="$FOLDER" tracking.uri="${MLFLOW_TRACKING_URI:?set it to the address of the MLflow server}")
if [ "${GPUS:-}" ]; then
    "${PYTHON:-python}" -c 'import sys, ray; from ray.autoscaler.sdk import request_resources
ray.init("auto", log_to_driver=False); request_resources(bundles=[{"GPU": 1}] * int(sys.argv[1]))' "$GPUS"
fi
journals=("$FOLDER"/sweeps/*/journal.jsonl) # compgen would take [1] in the folder's name for a pattern
if [ -e "${journals[0]}" ]; then
    changes=()
    for override; do
        case $override in budget.* | executor.*) changes+=("$override") ;; esac
    done
    exec "${PYTHON:-python}" -m cnnsweep resume --trust "${changes[@]}" "${place[@]}"
fi
exec "${PYTHON:-python}" -m cnnsweep executor=ray tracking=server "$@" "${place[@]}"
