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

# True when this processor is of level x86-64-v3, or better.
is_x86_64_v3() {
  local flag
  for flag in avx avx2 bmi1 bmi2 f16c fma abm movbe; do
    grep -qm1 -w "$flag" /proc/cpuinfo || return 1
  done
}

# FAISS and OpenBLAS. FAISS chooses no code at run time: without this it is compiled for the processors of 2003. Cargo does
# not compile it anew when the variable changes. Debian 12's OpenBLAS knows no processor that is newer than itself and takes
# kernels for old ones there. Both: docs/decisions/012-faiss.md.
if is_x86_64_v3; then
  export CXXFLAGS_x86_64_unknown_linux_gnu=${CXXFLAGS_x86_64_unknown_linux_gnu:--march=x86-64-v3}
  export OPENBLAS_CORETYPE=${OPENBLAS_CORETYPE:-Haswell}
fi

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
