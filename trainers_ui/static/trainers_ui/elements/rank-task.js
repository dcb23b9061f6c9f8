/* The ranking page: a form that works by itself, and over it the order as it is typed, clicked or dragged.
   The form's own fields hold the truth (the order as text, ratings and flags as radio buttons and boxes),
   so that what is sent, kept and restored is the same with and without this. */

import { ActiveTime } from "./active-time.js";
import { Draft } from "./draft.js";
import * as order from "./order.js";
import { OrderBar } from "./order-bar.js";
import { lettersOn, typing } from "./page.js";
import { Away, beacon, post } from "./send.js";

const SETTLE = 400;

class RankTask extends HTMLElement {
  connectedCallback() {
    this.form = this.querySelector("form");
    this.field = this.form.elements.order;
    this.bad = this.form.elements.all_bad;
    this.answers = new Map([...this.querySelectorAll(".answer")].map((answer) => [answer.dataset.letter, answer]));
    this.all = [...this.answers.keys()];
    this.order = order.parse(this.field.value, this.all);
    this.past = [];
    this.future = [];
    this.bar = new OrderBar(this.querySelector("[data-bar]"), this);
    this.listen();
    this.measure();
    this.show();
    this.time = new ActiveTime(Number(this.dataset.active));
    this.draft = new Draft(this, { read: () => this.state, restore: (draft) => this.become(draft), time: this.time });
    this.last = this.snapshot();
    if (matchMedia("(hover: hover)").matches && !document.querySelector("dialog[open]")) this.focusOn(this.all[0]);
    this.fetchNext();
  }

  disconnectedCallback() {
    this.time.stop();
    this.draft.end();
    this.quit.abort();
    this.watch.disconnect();
  }

  listen() {
    this.quit = new AbortController();
    const signal = this.quit.signal;
    const on = (target, name, act, capture = false) => target.addEventListener(name, act, { signal, capture });
    const area = this.querySelector(".answers");
    on(this, "keydown", (event) => this.key(event));
    on(area, "click", (event) => this.click(event));
    // A rating that is chosen again is taken back, which radio buttons alone cannot do.
    on(area, "pointerdown", (event) => this.remember(event), true);
    on(this.form, "change", (event) => event.target !== this.field && this.marked());
    on(this.form, "submit", (event) => this.submit(event));
    // The dialog stands outside of this element.
    for (const form of document.querySelectorAll("dialog form[data-ends]")) on(form, "submit", (event) => this.skip(event, form));
    on(this.querySelector("[data-undo]"), "click", () => this.undo());
    on(document, "letters", () => this.show());
    on(window, "pagehide", () => this.leave());
    on(window, "pageshow", (event) => event.persisted && this.fetchNext());
    for (const details of area.querySelectorAll("details")) on(details, "toggle", () => this.flagsOpened(details));
  }

  /** The order bar grows with the order: what sticks above it, and what scrolls into sight, has to know. */
  measure() {
    const bar = this.querySelector(".order");
    this.watch = new ResizeObserver(() => document.body.style.setProperty("--foot", `${bar.offsetHeight}px`));
    this.watch.observe(bar);
  }

  // --- State -------------------------------------------------------------------------------------------------

  /** What a draft keeps. */
  get state() {
    const ratings = {};
    const flags = {};
    for (const letter of this.all) {
      const rating = this.radios(letter).find((radio) => radio.checked);
      const checked = this.boxes(letter).filter((box) => box.checked).map((box) => box.value);
      if (rating) ratings[letter] = Number(rating.value);
      if (checked.length) flags[letter] = checked;
    }
    return { order: order.text(this.order), ratings, flags, all_bad: this.bad.checked };
  }

  radios = (letter) => [...this.answers.get(letter).querySelectorAll("input[type=radio]")];
  boxes = (letter) => [...this.answers.get(letter).querySelectorAll("input[type=checkbox]")];

  snapshot = () => JSON.stringify({ ...this.state, tie: this.order.tie });

  /** Show a draft as it is; nothing to undo. */
  become({ order: text = "", ratings = {}, flags = {}, all_bad = false, tie = false }) {
    this.order = order.parse(text, this.all);
    if (tie) this.order = order.tie(this.order);
    this.bad.checked = all_bad;
    for (const letter of this.all) {
      for (const radio of this.radios(letter)) radio.checked = Number(radio.value) === ratings[letter];
      for (const box of this.boxes(letter)) box.checked = (flags[letter] ?? []).includes(box.value);
    }
    this.last = this.snapshot();
    this.show();
  }

  change(next) {
    if (next === this.order) return;
    this.order = next;
    this.marked();
  }

  /** Something changed: remember what was, show what is, keep it. */
  marked() {
    const now = this.snapshot();
    if (now === this.last) return;
    this.past.push(this.last);
    this.future = [];
    this.last = now;
    this.show();
    this.draft.changed();
  }

  undo() {
    this.travel(this.past, this.future);
  }

  redo() {
    this.travel(this.future, this.past);
  }

  travel(from, to) {
    if (!from.length) return;
    to.push(this.last);
    this.become(JSON.parse(from.pop()));
    this.draft.changed();
  }

  // --- What is seen --------------------------------------------------------------------------------------------

  show() {
    this.field.value = order.text(this.order);
    const letters = lettersOn();
    for (const [letter, answer] of this.answers) {
      const found = order.placeOf(this.order, letter);
      const place = answer.querySelector(".place");
      place.textContent = order.word(found);
      if (found) answer.dataset.place = found.rank;
      else delete answer.dataset.place;
      answer.querySelector(".pick").setAttribute("aria-pressed", String(found !== null));
      const flags = this.boxes(letter).filter((box) => box.checked).length;
      answer.querySelector("[data-flags]").textContent = flags ? `${flags} flag${flags > 1 ? "s" : ""}` : "Flags";
      answer.querySelector("details").toggleAttribute("data-some", flags > 0);
    }
    this.toggleAttribute("data-letters-off", !letters);
    this.toggleAttribute("data-all-bad", this.bad.checked);
    this.querySelector("[data-undo]").disabled = !this.past.length;
    this.bar.show();
    const missing = order.missing(this.order, this.all, this.bad.checked);
    this.querySelector("[data-say]").textContent = `${this.bad.checked ? "All are bad. " : ""}${order.say(this.order)}`;
    this.querySelector("[data-missing]").textContent = order.sayMissing(missing);
    this.classList.toggle("complete", !missing.length);
  }

  notice(text, alarm = true) {
    const notice = document.createElement("p");
    notice.className = "notice";
    notice.setAttribute("role", alarm ? "alert" : "status");
    notice.textContent = text;
    this.querySelector("[data-notices]").replaceChildren(notice);
  }

  quiet() {
    this.querySelector("[data-notices] > .notice:not([data-keep])")?.remove();
  }

  focusOn(letter) {
    this.answers.get(letter)?.focus({ preventScroll: true });
  }

  // --- Keys ----------------------------------------------------------------------------------------------------

  /** The answer that has the focus itself, not one of its buttons. */
  get focused() {
    const answer = document.activeElement?.closest?.(".answer");
    return answer === document.activeElement ? answer.dataset.letter : null;
  }

  key(event) {
    if (event.isComposing || event.altKey || document.querySelector("dialog[open]")) return;
    const inField = typing(event.target);
    if (event.ctrlKey || event.metaKey) {
      if (event.key.toLowerCase() === "z" && !inField) this.act(event, () => (event.shiftKey ? this.redo() : this.undo()));
      else if (event.key.toLowerCase() === "y" && !inField) this.act(event, () => this.redo());
      return;
    }
    if (inField) return;
    if (event.key === "Escape") this.escape(event);
    else if (this.focused) this.answerKey(event, this.focused);
    else if (event.target.closest(".answers, .order") && !event.target.closest("details")) this.letterKey(event);
  }

  act(event, what) {
    event.preventDefault();
    what();
  }

  answerKey(event, letter) {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns }[event.key];
    if (step && !event.shiftKey) this.goesOn(letter, event.key) || this.act(event, () => this.walk(letter, step));
    else if (event.key === "Tab" && lettersOn()) this.tab(event, letter);
    else if (event.key === "Enter") this.act(event, () => event.repeat || this.form.requestSubmit());
    else if (event.key === " " && event.shiftKey === false) this.act(event, () => this.change(order.toggle(this.order, letter)));
    else if (lettersOn() && /^[1-7]$/.test(event.key)) this.act(event, () => this.rate(letter, Number(event.key)));
    else if (lettersOn() && event.key === ".") this.act(event, () => this.openFlags(letter));
    else this.letterKey(event);
  }

  letterKey(event) {
    if (event.key === "Backspace") return this.act(event, () => this.change(order.back(this.order)));
    if (!lettersOn() || event.key.length !== 1) return undefined;
    const letter = event.key.toUpperCase();
    if (this.answers.has(letter)) return this.act(event, () => this.pick(letter));
    if (event.key === "=") return this.act(event, () => this.tieNext());
    if (event.key === ">") return this.act(event, () => this.change(order.part(this.order)));
    if (event.key === "0") return this.act(event, () => this.bad.click());
    return undefined;
  }

  pick(letter) {
    this.quiet();
    this.change(order.toggle(this.order, letter));
    if (this.focused && this.answers.has(letter)) {
      this.focusOn(letter);
      this.answers.get(letter).scrollIntoView({ block: "nearest" });
    }
  }

  tieNext() {
    if (order.missing(this.order, this.all, false).length) this.change(order.tie(this.order));
    else this.notice("All answers have a place. Click a › between two of them to make them equal.");
  }

  rate(letter, rating) {
    for (const radio of this.radios(letter)) radio.checked = Number(radio.value) === rating && !radio.checked;
    this.marked();
  }

  openFlags(letter) {
    const details = this.answers.get(letter).querySelector("details");
    details.open = !details.open;
    if (details.open) details.querySelector("input").focus();
  }

  flagsOpened(details) {
    // One at a time, so that they never cover each other.
    if (details.open) this.querySelectorAll(".answers details[open]").forEach((other) => other !== details && (other.open = false));
  }

  escape(event) {
    const details = this.querySelector(".answers details[open]");
    if (details) this.act(event, () => {
      details.open = false;
      this.focusOn(details.closest(".answer").dataset.letter);
    });
    else this.bar.unpick();
  }

  get columns() {
    const tops = [...this.answers.values()].map((answer) => answer.offsetTop);
    return tops.filter((top) => top === tops[0]).length || 1;
  }

  /** An answer that goes on beyond the window is read to its end first: the key scrolls. */
  goesOn(letter, key) {
    const { top, bottom } = this.answers.get(letter).getBoundingClientRect();
    const room = { from: this.querySelector("main").offsetTop, to: this.querySelector(".order").getBoundingClientRect().top };
    return (key === "ArrowDown" && bottom > room.to + 1) || (key === "ArrowUp" && top < room.from - 1);
  }

  walk(letter, step) {
    const next = this.all[this.all.indexOf(letter) + step];
    if (!next) return;
    this.focusOn(next);
    this.answers.get(next).scrollIntoView({ block: "nearest" });
  }

  /** Tab goes from answer to answer; what is inside them has keys. With the keys off it goes through everything. */
  tab(event, letter) {
    const next = this.all[this.all.indexOf(letter) + (event.shiftKey ? -1 : 1)];
    if (next) this.act(event, () => this.walk(letter, event.shiftKey ? -1 : 1));
    else if (!event.shiftKey) this.act(event, () => this.bar.first().focus());
  }

  // --- Pointer ---------------------------------------------------------------------------------------------------

  click(event) {
    const answer = event.target.closest(".answer");
    if (!answer) return undefined;
    const letter = answer.dataset.letter;
    if (event.target === this.chosen) return this.rate(letter, Number(event.target.value));
    if (event.target.closest(".pick")) return this.pick(letter);
    if (event.target.closest("a, button, input, label, summary, details, fieldset, .raw")) return undefined;
    // Somebody marks text to read or copy it.
    if (!document.getSelection().isCollapsed) return undefined;
    return this.pick(letter);
  }

  remember(event) {
    const radio = event.target.closest("label")?.querySelector("input[type=radio]");
    this.chosen = radio?.checked ? radio : null;
  }

  // --- To the server ---------------------------------------------------------------------------------------------

  async submit(event) {
    event.preventDefault();
    const open = order.missing(this.order, this.all, this.bad.checked);
    if (open.length) {
      this.notice(`${order.sayMissing(open)} Best first: type or click ${open.length > 1 ? "them" : "it"}.`);
      return;
    }
    this.form.elements.active_seconds.value = this.time.seconds;
    await this.send(this.form);
  }

  async skip(event, form) {
    event.preventDefault();
    form.closest("dialog").close();
    await this.send(form);
  }

  /** Send a form that ends this task, and go on; where it is refused, all stays as it is. */
  async send(form) {
    if (this.sending) return;
    this.sending = true;
    this.setAttribute("aria-busy", "true");
    try {
      const answer = await post(form.action, new FormData(form));
      this.draft.end();
      await this.goOn(answer);
    } catch (error) {
      this.notice(error instanceof Away ? "No connection. Your order is kept here; try again in a moment." : error.message);
    } finally {
      this.sending = false;
      this.removeAttribute("aria-busy");
    }
  }

  /** The next task, which is here already if all went well. */
  async goOn({ notice, after }) {
    this.moving = true;
    const next = await this.next;
    try {
      if (next) {
        // It may have been given back meanwhile, by another tab or because its time ran out.
        await post(next.page.querySelector("rank-task").dataset.keepUrl);
        showPage(next, notice);
        return;
      }
    } catch {
      // Then whatever comes next.
    }
    try {
      const { location: where } = await post(this.dataset.claimUrl, { kind: "rank" });
      location.assign(`${where}?after=${after}`);
    } catch {
      location.assign(`/?after=${after}`);
    }
  }

  /** Fetch the next task while this one is worked on. Not at once: a page that is loaded again has just given one back. */
  fetchNext() {
    this.next = (async () => {
      try {
        await new Promise((done) => setTimeout(done, SETTLE));
        if (!this.isConnected) return null;
        const { location: where } = await post(this.dataset.aheadUrl);
        if (!where) return null;
        this.ahead = true;
        const response = await fetch(where);
        // Signed out, one would be led to the sign-in page.
        if (!response.ok || response.redirected) return null;
        return { where, page: new DOMParser().parseFromString(await response.text(), "text/html") };
      } catch {
        return null;
      }
    })();
  }

  /** Give back what was fetched ahead and not looked at. */
  leave() {
    if (!this.ahead || this.moving || this.dataset.seat !== "1") return;
    this.ahead = false;
    beacon(this.dataset.leaveUrl);
  }
}

/** Put a fetched page in the place of this one. Its head asks for the same scripts and styles. */
function showPage({ where, page }, notice) {
  page.querySelector("rank-task").dataset.seat = "1";
  history.pushState(null, "", where);
  document.title = page.title;
  document.body.replaceWith(document.adoptNode(page.body));
  scrollTo(0, 0);
  if (notice) document.querySelector("[data-notices]")?.insertAdjacentHTML("afterbegin", notice);
}

// Back leads to a page that has been replaced: ask the server for it.
addEventListener("popstate", () => location.reload());

customElements.define("rank-task", RankTask);
