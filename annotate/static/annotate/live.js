// Keeps fresh how far exports and imports are, on lists and pages, as long as one of them goes on.

const EVERY = 2000;

function parts(root) {
  return [...root.querySelectorAll("[data-live]")];
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
  if (found) {
    for (const old of parts(document)) {
      const fresh = parts(found).find((one) => one.dataset.live === old.dataset.live);
      if (!fresh) continue;
      // Buttons, files and other columns change with the state; not under somebody's hands, though.
      if (fresh.dataset.state !== old.dataset.state && !document.querySelector("input:checked, input:focus")) {
        location.reload();
        return;
      }
      old.replaceWith(fresh);
    }
  }
  watch();
}

function watch() {
  if (document.querySelector("[data-goes-on]")) setTimeout(look, EVERY);
}

addEventListener("DOMContentLoaded", watch);
