#!/bin/sh
# 150 s on a card: its tests, calibrate and dump_mean against its own copy, and one night. See gpu_run.sh.
exec sh "$(dirname "$0")/gpu_run.sh" --quick "$@"
