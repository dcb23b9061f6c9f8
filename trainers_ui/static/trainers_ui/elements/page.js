/* What every page has: dialogs over links that also work as pages, keys that press what shows them,
   and forms that are sent once. */

const TYPES = "input:not([type=radio]):not([type=checkbox]), textarea, select, [contenteditable]";

/** Whether keys are text here. */
export const typing = (target) => target instanceof Element && target.closest(TYPES) !== null;

/** Whether single letters act; people who dictate turn them off. */
export function lettersOn() {
  try {
    return localStorage.getItem("bothsides:letters") !== "off";
  } catch {
    return true;
  }
}

function open(id) {
  const dialog = document.getElementById(id);
  if (dialog && !dialog.open) dialog.showModal();
  return dialog;
}

/** The shown or hidden things that a key presses: aria-keyshortcuts is "Alt+G" or "? F1". */
function pressed(event) {
  // A Mac's Alt turns G into ©; the place of the key stays.
  const letter = event.code?.startsWith("Key") ? event.code.slice(3) : event.key;
  const name = event.altKey && !event.ctrlKey && !event.metaKey ? `Alt+${letter}` : event.key;
  if (!event.altKey && (event.ctrlKey || event.metaKey)) return null;
  if (name.length === 1 && (typing(event.target) || !lettersOn())) return null;
  if (name.length === 1 && name !== "?") return null;
  return [...document.querySelectorAll("[aria-keyshortcuts]")].find((found) =>
    found.getAttribute("aria-keyshortcuts").split(" ").includes(name),
  );
}

document.addEventListener("keydown", (event) => {
  // Browsers that fill a form in send key events without a key.
  // A key that is held must not go on acting on the page that it led to.
  if (!event.key || event.repeat || event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
  const found = pressed(event);
  if (!found || found.hidden || found.disabled) return;
  event.preventDefault();
  found.click();
});

document.addEventListener("click", (event) => {
  const opener = event.target.closest?.("[data-dialog]");
  if (opener && !event.ctrlKey && !event.metaKey && open(opener.dataset.dialog)) event.preventDefault();
  const closer = event.target.closest?.("[data-close]");
  if (closer) {
    event.preventDefault();
    closer.closest("dialog").close();
  }
  // A click beside an open dialog closes it.
  if (event.target instanceof HTMLDialogElement) event.target.close();
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.method === "dialog" || form.dataset.sent) {
    if (form.dataset.sent) event.preventDefault();
    return;
  }
  if (form.matches("[data-once]")) form.dataset.sent = "yes";
});

addEventListener("pageshow", (event) => {
  if (event.persisted) document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent);
});

class LetterKeys extends HTMLElement {
  connectedCallback() {
    const box = this.querySelector("input");
    this.hidden = false;
    box.checked = lettersOn();
    box.addEventListener("change", () => {
      try {
        localStorage.setItem("bothsides:letters", box.checked ? "on" : "off");
      } catch {
        box.checked = true;
      }
      document.dispatchEvent(new CustomEvent("letters"));
    });
  }
}
customElements.define("letter-keys", LetterKeys);

/** Server HTML of a text and, behind the button of its article, the text as the model wrote it. */
class RawText extends HTMLElement {
  connectedCallback() {
    const article = this.closest("article");
    const button = article.querySelector(".raw-toggle");
    button.hidden = false;
    // An answer and what was thought before it share one button.
    button.onclick = () => {
      const raw = button.getAttribute("aria-pressed") !== "true";
      for (const text of article.querySelectorAll("raw-text")) text.show(raw);
      button.setAttribute("aria-pressed", String(raw));
    };
  }

  show(raw) {
    this.querySelector(":scope > .raw").hidden = !raw;
    this.querySelector(":scope > .message").hidden = raw;
  }
}
customElements.define("raw-text", RawText);
