#!/usr/bin/env bash
# One sweep on the nodes of a SLURM allocation: a Ray cluster for as long as the job lasts, tracked by an MLflow server.
#
#   export MLFLOW_TRACKING_URI=http://mlflow.example.org:5000    # and MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD
#   sbatch --job-name=fashion-1 deploy/slurm.sh +sweep=fashion budget.trials=200 budget.minutes=null
#
# Submit the same line again and the sweep goes on where it ended: at the time limit, after a crash, after scancel.
# With REQUEUE=1 before it the job puts itself back into the queue at its time limit until the sweep is complete.
# To end it cleanly before its time: scancel --batch --signal=TERM JOB.
#
# Change these to your cluster. One task a node: Ray finds a node's GPUs and shares them out.
#SBATCH --job-name=cnnsweep
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=04:00:00
#SBATCH --output=%x-%j.log
# A job that is queued again goes on in the same log.
#SBATCH --open-mode=append
# Five minutes before the limit the script, not the programs it started, gets a SIGTERM.
#SBATCH --signal=B:TERM@300
set -euo pipefail

# The folder of this sweep: journal, checkpoints and data. The first node must see it under this path, with working
# locks (NFS 4, Lustre mounted with flock); the others get their files from the driver.
FOLDER=${FOLDER:-$SLURM_SUBMIT_DIR/runs/$SLURM_JOB_NAME}
# cnnsweep is installed there, with its extras ray and gpu, in a place that every node sees.
VENV=${VENV:-$SLURM_SUBMIT_DIR/.venv}
# SLURM runs a copy of this script, so it needs the folder of the others.
SCRIPTS=${SCRIPTS:-$SLURM_SUBMIT_DIR/deploy}
# Running epochs may take so long after the SIGTERM; shorter than --signal's time.
GRACE=${GRACE:-240}

# Two jobs may share a node, so ports and folder depend on the job. The head is the node on which this script runs.
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
ip=${HEAD_IP:-$(hostname -I | awk '{print $1}')} # with several networks: HEAD_IP names the one for Ray
port=$((20000 + SLURM_JOB_ID % 10000))
address=$ip:$port
cores=${SLURM_CPUS_PER_TASK:-1}

# Other users of the nodes cannot use this Ray: it asks for the job's token, which the steps inherit.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | sha256sum | cut -c 1-64)

steps=()
trap 'kill -TERM "${steps[@]}" 2>/dev/null || true; wait' EXIT # srun hands it on to Ray

# --overlap: the steps do not wait for each other's resources. --block: Ray lives as long as its step.
echo "Ray's head on ${nodes[0]} ($address), workers on $((${#nodes[@]} - 1)) more nodes"
srun --overlap --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" --cpus-per-task="$cores" \
    "$VENV/bin/ray" start --head --node-ip-address="$ip" --port="$port" --num-cpus="$cores" \
    --ray-client-server-port=$((port + 10000)) --temp-dir="/tmp/ray-$SLURM_JOB_ID" \
    --include-dashboard=false --disable-usage-stats --block &
steps+=($!)
for _ in $(seq 60); do
    "$VENV/bin/ray" health-check --address "$address" 2>/dev/null && up=1 && break
    kill -0 "${steps[0]}" 2>/dev/null || break
    sleep 1
done
[ "${up:-}" ] || { echo "Ray's head did not start" >&2; exit 1; }
if [ "${#nodes[@]}" -gt 1 ]; then
    rest=$((${#nodes[@]} - 1))
    srun --overlap --nodes="$rest" --ntasks="$rest" --ntasks-per-node=1 --exclude="${nodes[0]}" \
        --cpus-per-task="$cores" \
        "$VENV/bin/ray" start --address="$address" --num-cpus="$cores" --disable-usage-stats --block &
    steps+=($!)
fi

# The driver needs no GPU, and waits for no node: it uses them as they come.
[ $# -gt 0 ] || set -- +sweep=fashion
FOLDER=$FOLDER PYTHON=$VENV/bin/python "$SCRIPTS/start_or_resume.sh" "$@" \
    executor.address="$address" executor.grace_seconds="$GRACE" &
driver=$!

# A trap runs when `wait` returns, so the driver is waited for once more after it. Running epochs end, the sweep is
# marked interrupted, and what MLflow has not got waits in the journal.
stopping=
trap 'stopping=1; kill -TERM "$driver" 2>/dev/null || true' TERM
code=0
wait "$driver" || code=$?
if [ "$stopping" ]; then
    code=0
    wait "$driver" || code=$?
fi

# 0: complete. 130: interrupted, can be resumed; 143: so early that nothing was begun.
echo "the sweep ended with $code"
if [[ $code == 130 || $code == 143 ]] && [ "${REQUEUE:-}" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
