/* The bar that shows the order: chips for answers, and between each two a button that switches › and =.
   A chip moves by arrow keys, by drag, or by the buttons that appear once it is clicked. */

import * as order from "./order.js";

const FAR = 6;
const TAPS = matchMedia("(hover: none)").matches;

export class OrderBar {
  constructor(place, task) {
    this.place = place;
    this.task = task;
    this.picked = null;
    place.addEventListener("keydown", (event) => this.key(event));
    place.addEventListener("pointerdown", (event) => this.grab(event));
    place.addEventListener("click", (event) => this.click(event));
  }

  get order() {
    return this.task.order;
  }

  show() {
    const focus = this.place.contains(document.activeElement) ? document.activeElement.dataset.at : null;
    if (this.picked && !this.order.letters.includes(this.picked)) this.picked = null;
    const parts = [];
    let index = 0;
    for (const group of order.tiers(this.order)) {
      if (parts.length) parts.push(this.sign(index - 1));
      const tier = element("span", { class: group.length > 1 ? "tier tie" : "tier" });
      for (const letter of group) {
        if (tier.childElementCount) tier.append(this.sign(index - 1));
        tier.append(this.chip(letter));
        index += 1;
      }
      parts.push(tier);
    }
    this.place.replaceChildren(...parts, ...this.rest());
    if (focus) (this.place.querySelector(`[data-at="${focus}"]`) ?? this.first()).focus({ preventScroll: true });
  }

  chip(letter) {
    const word = order.word(order.placeOf(this.order, letter));
    return element("button", {
      type: "button",
      class: "chip",
      "data-at": letter,
      "data-chip": letter,
      "aria-expanded": String(this.picked === letter),
      "aria-label": `${letter}, ${word}. Arrow keys move it, Delete takes it out`,
    }, letter);
  }

  sign(index) {
    const [left, right] = [this.order.letters[index], this.order.letters[index + 1]];
    const tied = this.order.signs[index] === "=";
    return element("button", {
      type: "button",
      class: "sign",
      "data-at": `sign-${index}`,
      "data-sign": index,
      "aria-label": tied ? `${left} equals ${right}. Put ${left} before ${right}` : `${left} before ${right}. Make them equal`,
      title: tied ? "Tied. Click to part them" : "Better than. Click to tie them",
    }, tied ? "=" : "›");
  }

  /** What comes after the last chip: the waiting sign, what has no place yet, or the buttons of a picked chip. */
  rest() {
    const missing = order.missing(this.order, this.task.all, false);
    const parts = [];
    if (missing.length) {
      if (this.order.letters.length) parts.push(element("span", { class: "then", "aria-hidden": "true" }, this.order.tie ? "=" : "›"));
      parts.push(element("span", { class: "empty", "aria-hidden": "true" }, `${TAPS ? "tap" : "type or click"} ${missing.length > 4 ? "the next best" : either(missing)}`));
    }
    if (this.picked) {
      const at = this.order.letters.indexOf(this.picked);
      parts.push(element("span", { class: "mend", role: "group", "aria-label": `Move ${this.picked}` },
        this.mend("earlier", "‹", `Move ${this.picked} up`, at === 0),
        this.mend("later", "›", `Move ${this.picked} down`, at === this.order.letters.length - 1),
        this.mend("out", "×", `Take ${this.picked} out`, false)));
    }
    return parts;
  }

  mend(act, text, label, disabled) {
    return element("button", { type: "button", class: "step", "data-at": act, "data-mend": act, "aria-label": label, title: label, ...(disabled && { disabled: "" }) }, text);
  }

  first() {
    return this.place.querySelector("button") ?? this.task.querySelector("[data-submit]");
  }

  unpick() {
    if (!this.picked) return;
    this.picked = null;
    this.show();
  }

  click(event) {
    const button = event.target.closest("button");
    if (!button) return;
    const { sign, chip, mend } = button.dataset;
    if (sign !== undefined) this.task.change(order.flip(this.order, Number(sign)));
    else if (mend) this.mended(mend);
    else if (chip && !this.dragged) {
      this.picked = this.picked === chip ? null : chip;
      this.show();
    }
    this.dragged = false;
  }

  mended(act) {
    const at = this.order.letters.indexOf(this.picked);
    if (act === "out") this.task.change(order.takeOut(this.order, this.picked));
    else this.task.change(order.move(this.order, this.picked, at + (act === "later" ? 1 : -1)));
  }

  key(event) {
    const letter = event.target.dataset?.chip;
    if (!letter || event.altKey || event.ctrlKey || event.metaKey) return;
    const at = this.order.letters.indexOf(letter);
    const to = { ArrowLeft: at - 1, ArrowUp: at - 1, ArrowRight: at + 1, ArrowDown: at + 1, Home: 0, End: Infinity }[event.key];
    if (to === undefined && event.key !== "Delete") return;
    event.preventDefault();
    event.stopPropagation();
    this.task.change(event.key === "Delete" ? order.takeOut(this.order, letter) : order.move(this.order, letter, to));
  }

  // --- Drag: the order changes when the chip is let go, so that the element under the pointer stays the same.

  grab(event) {
    const chip = event.target.closest(".chip");
    if (!chip || event.button !== 0) return;
    const from = { x: event.clientX, y: event.clientY };
    const stop = new AbortController();
    const on = (name, act) => chip.addEventListener(name, act, { signal: stop.signal });
    this.dragged = false;
    chip.setPointerCapture(event.pointerId);
    on("pointermove", (moved) => {
      const [x, y] = [moved.clientX - from.x, moved.clientY - from.y];
      if (!this.dragged && Math.hypot(x, y) < FAR) return;
      this.dragged = true;
      chip.classList.add("held");
      chip.style.translate = `${x}px ${y}px`;
      this.mark(this.target(chip, moved));
    });
    const end = (released) => {
      stop.abort();
      chip.classList.remove("held");
      chip.style.translate = "";
      const to = this.dragged && released.type === "pointerup" ? this.target(chip, released) : -1;
      this.mark(-1);
      if (to >= 0) this.task.change(order.move(this.order, chip.dataset.chip, to));
    };
    on("pointerup", end);
    on("pointercancel", end);
    on("lostpointercapture", end);
  }

  /** The position at which a chip would land: that of the nearest other one, or its own. */
  target(chip, { clientX, clientY }) {
    const chips = [...this.place.querySelectorAll(".chip")];
    const distances = chips.map((other) => {
      const box = other === chip ? this.home(chip) : other.getBoundingClientRect();
      return Math.hypot(clientX - (box.left + box.right) / 2, 2 * (clientY - (box.top + box.bottom) / 2));
    });
    return distances.indexOf(Math.min(...distances));
  }

  /** Where a held chip came from. */
  home(chip) {
    const box = chip.getBoundingClientRect();
    const [x, y] = (chip.style.translate || "0px 0px").split(" ").map(parseFloat);
    return { left: box.left - x, right: box.right - x, top: box.top - (y || 0), bottom: box.bottom - (y || 0) };
  }

  mark(index) {
    this.place.querySelectorAll(".chip").forEach((chip, at) => chip.classList.toggle("target", at === index && !chip.classList.contains("held")));
  }
}

const either = (letters) => (letters.length < 2 ? letters.join("") : `${letters.slice(0, -1).join(", ")} or ${letters.at(-1)}`);

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
