#!/usr/bin/env bash
# A run's report in a real browser: every picture is there, the charts have lines, the console is silent. Without
# Chromium ctest lists the test as skipped.
set -euo pipefail

browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$browser" ]; then
  echo "SKIPPED: no Chromium here; the package chromium has one"
  exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
  echo "FAILED: $*" >&2
  exit 1
}

cd "$TESSERA_SOURCE_DIR"
"$TESSERA_BUILD_DIR/tessera" train configs/smoke.yaml output="$work/run" train.epochs=2 train.log_every_steps=1 \
  >"$work/log" 2>&1 || fail "$(cat "$work/log")"
page=$work/run/report.html
[ -s "$page" ] || fail "no report"

# A copy that counts, once everything is loaded, what is to be seen.
{
  cat "$page"
  cat <<'EOF'
<script>
addEventListener("load", () => {
  const images = [...document.images];
  const lines = [...document.querySelectorAll(".chart .line")].filter(line => line.getTotalLength() > 0);
  document.title = `pictures ${images.filter(i => i.complete && i.naturalWidth > 0).length}/${images.length}, ` +
    `lines ${lines.length}, high ${document.body.scrollHeight > 1000}`;
});
</script>
EOF
} >"$work/check.html"

"$browser" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$work/profile" \
  --enable-logging=stderr --virtual-time-budget=10000 --dump-dom "file://$work/check.html" \
  >"$work/dom" 2>"$work/console" || fail "the browser ended with $?: $(tail -5 "$work/console")"
title=$(sed -n 's/.*<title>\(.*\)<\/title>.*/\1/p' "$work/dom")
# Ten photos or more, two attention pictures and the confusion matrix; loss, two accuracies, rate, speed, gradient.
[[ $title =~ ^pictures\ ([0-9]+)/([0-9]+),\ lines\ ([0-9]+),\ high\ true$ ]] || fail "the page says '$title'"
[ "${BASH_REMATCH[1]}" -eq "${BASH_REMATCH[2]}" ] && [ "${BASH_REMATCH[1]}" -ge 13 ] || fail "$title"
[ "${BASH_REMATCH[3]}" -ge 6 ] || fail "$title"
! grep -E "CONSOLE|Uncaught" "$work/console" || fail "the console is not silent"
! grep -E "(src|href)='?(http|//|/)" "$page" || fail "the page needs other files"
