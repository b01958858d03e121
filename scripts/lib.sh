# Shared by the scripts beside it; sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export VECTORSPHERE_CACHE=${VECTORSPHERE_CACHE:-$HOME/.cache/vectorsphere}
# Build products stay outside of the checkout, so that a fresh clone builds fast.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$VECTORSPHERE_CACHE/target}
# Checkouts share the build products, and what the compiler keeps of one checkout's sources can make it fail on another's
# ("encountered incremental compilation error"). It also takes more room than everything else.
export CARGO_INCREMENTAL=0
export PATH="$PATH:$HOME/.cargo/bin"
BIN=$CARGO_TARGET_DIR/debug

# stage NAME BUDGET_MINUTES COMMAND...: runs a command and prints its time against its budget.
stage() {
  local name=$1 budget=$2 started=$SECONDS status note=""
  shift 2
  printf '\n==> %s (budget %s min)\n' "$name" "$budget"
  # A condition (`||`, `if`) around the command would switch `set -e` off inside it: a failed step would be forgotten.
  set +e
  (set -e; "$@")
  status=$?
  set -e
  local took=$((SECONDS - started))
  [ "$took" -le $((budget * 60)) ] || note=", OVER BUDGET"
  [ "$status" = 0 ] || note+=", FAILED"
  printf '<== %s: %d min %02d s of %s min%s\n' "$name" $((took / 60)) $((took % 60)) "$budget" "$note"
  return "$status"
}
