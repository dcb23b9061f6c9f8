/* Texts as the server shows them: Markdown, code and mathematics. Asked for together, kept by the text. */

import { post } from "./send.js";

const SOON = 40;
const AT_ONCE = 50;
const KEPT = 400;

export class Shown {
  constructor(url) {
    this.url = url;
    this.kept = new Map();
    this.waiting = new Map();
  }

  keep(text, html) {
    if (this.kept.size >= KEPT) this.kept.delete(this.kept.keys().next().value);
    this.kept.set(text, html);
  }

  /** Show a text in an element: as it is until the server has answered, and where it does not. */
  show(element, text) {
    if (element.dataset.text === text) return;
    element.dataset.text = text;
    const html = this.kept.get(text);
    if (html !== undefined) {
      this.put(element, html);
      return;
    }
    element.textContent = text;
    element.classList.add("as-typed");
    if (text.trim()) this.want(text, element);
  }

  put(element, html) {
    element.innerHTML = html;
    element.classList.remove("as-typed");
  }

  want(text, element) {
    this.waiting.set(text, [...(this.waiting.get(text) ?? []), element]);
    this.timer ??= setTimeout(() => this.ask(), SOON);
  }

  async ask() {
    this.timer = null;
    const asked = [...this.waiting].slice(0, AT_ONCE);
    for (const [text] of asked) this.waiting.delete(text);
    if (this.waiting.size) this.timer = setTimeout(() => this.ask(), SOON);
    try {
      const { html } = await post(this.url, { texts: JSON.stringify(asked.map(([text]) => text)) });
      for (const [index, [text, elements]] of asked.entries()) {
        this.keep(text, html[index]);
        for (const element of elements) if (element.dataset.text === text) this.put(element, html[index]);
      }
    } catch {
      // It stays as it was typed; asked again the next time it is shown.
      for (const [, elements] of asked) for (const element of elements) delete element.dataset.text;
    }
  }
}

/** An element with attributes and children, made in one go. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}
