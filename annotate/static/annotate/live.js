// Keeps parts of a page fresh as long as something on it goes on: how far exports and imports are, figures of workers.

const EVERY = 2000;

function parts(root) {
  return [...root.querySelectorAll("[data-live]")];
}

// What somebody opened or closed stays so, and what they are at is left alone until they have gone on.
function put(old, fresh) {
  const chosen = getSelection();
  if (old.contains(document.activeElement) || (!chosen.isCollapsed && chosen.containsNode(old, true))) return;
  for (const part of old.querySelectorAll("details[id]")) {
    const same = fresh.querySelector(`#${CSS.escape(part.id)}`);
    if (same) same.open = part.open;
  }
  const wide = [...old.querySelectorAll(".wide")].map((one) => one.scrollLeft);
  if (old.isEqualNode(fresh)) return;
  old.replaceWith(fresh);
  for (const [index, one] of fresh.querySelectorAll(".wide").entries()) one.scrollLeft = wide[index] ?? 0;
}

async function look() {
  let found = null;
  if (!document.hidden) {
    try {
      const answer = await fetch(location.href);
      if (answer.ok) found = new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch {
      // The network or the site is away; the next look may find it.
    }
  }
  // Where there are such words: that what is shown is old.
  for (const one of document.querySelectorAll("[data-away]")) one.hidden = document.hidden || Boolean(found);
  if (found) {
    for (const old of parts(document)) {
      const fresh = parts(found).find((one) => one.dataset.live === old.dataset.live);
      if (!fresh) continue;
      // Buttons, files and other columns change with the state; not under somebody's hands, though.
      if (fresh.dataset.state !== old.dataset.state && !document.querySelector("input:checked, input:focus")) {
        location.reload();
        return;
      }
      put(old, fresh);
    }
  }
  watch();
}

function watch() {
  if (document.querySelector("[data-goes-on]")) setTimeout(look, EVERY);
}

addEventListener("DOMContentLoaded", watch);
