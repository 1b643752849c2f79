#!/usr/bin/env bash
# Embed a data set every night, each night into a run store of its own. For cron or any other scheduler:
#
#     nightly.sh SOURCE FOLDER [options of daskumap fit]
#
# The exit code is daskumap's. Started again on the same day, it goes on where it was interrupted.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 SOURCE FOLDER [options of daskumap fit]" >&2
    exit 2
fi
source=$1 folder=$2
shift 2
mkdir -p "$folder"
exec daskumap fit "$source" "$folder/$(date +%F).zarr" "$@"
