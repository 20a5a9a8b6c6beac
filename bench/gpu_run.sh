#!/bin/sh
# Everything that needs a card, in one call of at most 9 minutes and without network:
#   sh bench/gpu_run.sh            tests on the card, kernel benches, PWV fits, whole nights in memory and
#                                  on disk, compute-sanitizer
#   sh bench/gpu_run.sh --quick    150 s: tests on the card, calibrate and dump_mean, one night
#   sh bench/gpu_run.sh --dry      the same stages without a card, at toy size; measures nothing
#                                  (GPUCAL_SLOW=10: on a busy machine, with ten times the limits)
#   sh bench/gpu_run.sh --wheels   where there is a network: collects in .whl/ what gpu_wheels.txt names
#                                  for Python 3.12, Linux x86-64 and CUDA 13; add to it, where the machine
#                                  has no CuPy:  --wheels cupy-cuda13x
# All output goes to one log, gpu_run.log in $OUT (default bench/results), beside the results of each device,
# which are saved one by one as they come. Wheels in .whl/ are installed to $GPUCAL_SITE (default
# /tmp/site), without network; an old CuPy there stays where .whl/ has none. Nights on disk go to
# $GPUCAL_BENCH_DISK (default bench/scratch). The exit status is 0 only if every stage passed.
set -u

cd "$(dirname "$0")/.." || exit 1
dry= quick=
case ${1:-} in
"") ;;
--quick) quick=1 ;;
--dry) dry=1 ;;
--wheels)
    shift
    collect() {
        "${PYTHON:-python3}" -m pip download -d .whl --only-binary=:all: --python-version 3.12 \
            --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
            --platform manylinux_2_24_x86_64 --platform manylinux_2_17_x86_64 \
            --platform manylinux2014_x86_64 "$@"
    }
    # pydantic and its core fit together only in pairs, so pip has to find them.
    collect pydantic && collect --no-deps -r bench/gpu_wheels.txt "$@"
    exit
    ;;
*)
    echo "usage: $0 [--quick | --dry | --wheels [MORE..]]" >&2
    exit 2
    ;;
esac

total_seconds=535
[ -z "$quick" ] || total_seconds=150
slow=1
[ -z "$dry" ] || slow=${GPUCAL_SLOW:-1}
total_seconds=$((total_seconds * slow))
work=$(mktemp -d) || exit 1
warming=
trap '[ -z "$warming" ] || kill "$warming" 2>/dev/null; rm -rf "$work"' EXIT
started=$(date +%s)
if [ -n "$dry" ]; then
    out=$work/out
    mkdir "$out" || exit 1
else
    out=${OUT:-bench/results}
    mkdir -p "$out" || exit 1
    out=$(cd "$out" && pwd) || exit 1
fi
log=$out/gpu_run.log summary=$work/summary
: >"$log" || exit 1
: >"$summary"
say() { echo "$*" | tee -a "$log" "$summary"; }

python=
for name in python3 python3.13 python3.12 python3.11 python; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$name
        break
    fi
done
if [ -z "$python" ]; then
    say "FAILED: no python3 of version 3.11 or newer is on the PATH."
    exit 1
fi

failed=
site=${GPUCAL_SITE:-/tmp/site}
PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
if [ -z "$dry" ] && [ -d .whl ]; then
    if "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
        --target "$site" .whl/*.whl >>"$log" 2>&1; then
        PYTHONPATH=$site:$PYTHONPATH
    else
        say "wheels: pip cannot install .whl/*.whl to $site: see $log"
        failed="$failed wheels,"
    fi
fi
PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# What CuPy compiled once is there for the next call.
CUPY_CACHE_DIR=${CUPY_CACHE_DIR:-/tmp/gpucal-cupy-cache}
export CUPY_CACHE_DIR
export PYTHONPATH PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE

needed="numpy scipy zarr numcodecs rich typer pydantic array_api_compat google_crc32c pytest hypothesis"
wanted=
if [ -z "$dry" ]; then
    needed="$needed cupy"
    wanted="nvidia.nvcomp kvikio matplotlib"
fi
# shellcheck disable=SC2086 # a list of names
if ! "$python" -c '
import importlib, sys
print("python", sys.version.split()[0], "at", sys.executable)
missing = []
for name in sys.argv[1:]:
    try:
        module = importlib.import_module(name)
        print("   ", name, getattr(module, "__version__", ""))
    except Exception as error:
        reason = " ".join(str(error).split())[-200:]
        missing.append(f"    {name} is missing: {type(error).__name__}: {reason}")
print(*missing, sep="\n")
sys.exit(bool(missing))
' $needed >>"$summary" 2>&1; then
    say "packages: $(grep -c ' is missing: ' "$summary") cannot be imported; carry their wheels in .whl/:"
    grep ' is missing: ' "$summary"
    failed="$failed packages,"
fi
# shellcheck disable=SC2086 # a list of names
"$python" - $wanted >"$work/wanted" 2>&1 <<'PYTHON'
import importlib, sys
for name in sys.argv[1:]:
    try:
        module = importlib.import_module(name)
        print("   ", name, getattr(module, "__version__", ""))
    except Exception as error:
        reason = " ".join(str(error).split())[-200:]
        print(f"    {name} cannot be imported, so what it does is not measured: {reason}")
PYTHON
cat "$work/wanted" >>"$summary"
grep ' cannot be imported' "$work/wanted" || true
if [ -z "$dry" ] && command -v nvidia-smi >/dev/null 2>&1; then
    nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used,clocks.sm \
        --format=csv >>"$summary" 2>&1
fi

# Seconds of processor time of all that this shell has waited for.
cpu_seconds() {
    times >"$work/times"
    awk 'NR == 2 { for (i = 1; i <= 2; i++) { split($i, a, /[ms]/); n += 60 * a[1] + a[2] } printf "%d", n + 0.5 }' \
        "$work/times"
}

# stage NAME SECONDS COMMAND..: its output goes to the log as it comes, and its last lines are shown.
stage() {
    name=$1 limit=$(($2 * slow))
    shift 2
    left=$((total_seconds - $(date +%s) + started))
    if [ "$left" -lt 5 ]; then
        say "$name: NOT RUN, the $total_seconds s of the whole call are used up"
        failed="$failed $name,"
        return
    fi
    [ "$limit" -le "$left" ] || limit=$left
    begin=$(date +%s)
    # Not in a subshell, whose processor time would be its own.
    cpu_seconds >"$work/before"
    lines=$(wc -l <"$log")
    echo "== $name" >>"$log"
    timeout -k 5 "$limit" "$@" >>"$log" 2>&1
    status=$?
    cpu_seconds >"$work/after"
    spent="$(($(date +%s) - begin)) s, $(($(cat "$work/after") - $(cat "$work/before"))) s of CPU"
    tail -n "+$((lines + 1))" "$log" >"$work/shown"
    sed -n '1p' "$work/shown"
    # The first failure, if the end does not show it.
    grep -m 1 -A 30 'FAILED NOW' "$work/shown" || true
    tail -n 40 "$work/shown" | grep -v "^== $name\$"
    case $status in
    0) say "$name: passed in $spent" ;;
    124 | 137) say "$name: FAILED, stopped at its limit of $limit s ($spent)" ;;
    *) say "$name: FAILED with exit status $status after $spent" ;;
    esac
    [ "$status" -eq 0 ] || failed="$failed $name,"
}

# Compiling and loading takes some 25 s on a new machine: in the background, while the tests run.
warm_up() {
    begin=$(date +%s)
    timeout 120 "$python" -m bench.gpu.warm_up >"$work/warm" 2>&1 &
    warming=$!
}

warmed() {
    [ -n "$warming" ] || return 0
    wait "$warming"
    status=$?
    warming=
    cat "$work/warm" >>"$log"
    text=$(tail -n 1 "$work/warm")
    if [ "$status" -eq 0 ]; then
        say "cold start: ${text:-done}"
    else
        say "cold start: FAILED with exit status $status: $text"
        failed="$failed cold start,"
    fi
}

# Plugins and warnings of other packages on that machine are none of our business.
PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
export PYTEST_DISABLE_PLUGIN_AUTOLOAD
tests="-q -p no:cacheprovider -W default --tb=short tests/card"
disk=${GPUCAL_BENCH_DISK:-bench/scratch}
if [ -n "$dry" ]; then
    disk=$out/scratch
fi
mkdir -p "$disk" || exit 1
# shellcheck disable=SC2086 # lists of options
if [ -n "$dry" ]; then
    unset GPUCAL_REQUIRE_GPU
    # Not on a clock: it measures nothing.
    stage tests 300 env GPUCAL_FAKE_CARD=1 "$python" -m pytest $tests -r fE -k "codec or subnormal"
    stage kernels 300 "$python" -m bench.gpu.kernels --dry
    stage pwv 300 "$python" -m bench.gpu.pwv --dry
    stage night 300 "$python" -m bench.gpu.chain --dry
    stage disk 300 "$python" -m bench.gpu.chain --dry --folder "$disk"
    say "memcheck, racecheck: not run, they need a card"
elif [ -n "$quick" ]; then
    warm_up
    stage tests 60 env GPUCAL_REQUIRE_GPU=1 "$python" -m pytest $tests -k "not Contract" --durations=5
    warmed
    stage kernels 40 "$python" -m bench.gpu.kernels --save --results "$out" --only calibrate dump_mean
    stage night 45 "$python" -m bench.gpu.chain --save --results "$out" --seconds 40 --only upgreat
else
    warm_up
    stage tests 90 env GPUCAL_REQUIRE_GPU=1 "$python" -m pytest $tests --durations=5
    warmed
    stage kernels 90 "$python" -m bench.gpu.kernels --save --results "$out"
    stage pwv 30 "$python" -m bench.gpu.pwv --save --results "$out"
    stage night 150 "$python" -m bench.gpu.chain --save --results "$out" --seconds 140
    stage disk 60 "$python" -m bench.gpu.chain --save --results "$out" --seconds 50 --folder "$disk"
    # Last, as it measures nothing: what is left of the time is for it.
    if command -v compute-sanitizer >/dev/null 2>&1; then
        for tool in memcheck racecheck; do
            stage $tool 50 compute-sanitizer --tool $tool --error-exitcode 9 \
                "$python" -m bench.gpu.kernels --toy
        done
    else
        say "memcheck, racecheck: not run, compute-sanitizer is not on the PATH"
    fi
fi
[ -n "${GPUCAL_BENCH_DISK:-}" ] || rm -rf bench/scratch

echo "== summary" | tee -a "$log"
cat "$summary"
cat "$summary" >"$work/all" && cat "$work/all" >>"$log"
[ -z "$dry" ] || echo "dry run: nothing was measured"
if [ -n "$failed" ]; then
    echo "FAILED:${failed%,}"
    exit 1
fi
echo "all stages passed in $(($(date +%s) - started)) s"
