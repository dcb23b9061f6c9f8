/* The review page: a form that works by itself. Over it: keys, drafts, a word for what the verdict would do,
   and the next review after this one. The form's own fields hold the truth. */

import { ActiveTime } from "./active-time.js";
import { Draft } from "./draft.js";
import { lettersOn, typing } from "./page.js";
import { Away, post } from "./send.js";
import { underBar } from "./under-bar.js";

const plain = (text) => text.replaceAll("\r\n", "\n").trim();

class ReviewTask extends HTMLElement {
  connectedCallback() {
    this.form = this.querySelector("form");
    // Sent by this script; without it the form is sent once.
    delete this.form.dataset.once;
    this.turns = [...this.querySelectorAll(".turn")];
    this.texts = this.turns.filter((turn) => turn.querySelector("[data-edit]"));
    this.original = new Map(this.texts.map((turn) => [turn, turn.querySelector(".raw").textContent]));
    this.time = new ActiveTime(Number(this.dataset.active));
    this.draft = new Draft(this, { read: () => this.state, restore: (draft) => this.become(draft), time: this.time, tabs: true, focus: () => this.current?.focus({ preventScroll: true }) });
    this.listen();
    this.measure();
    this.show();
  }

  disconnectedCallback() {
    this.time.stop();
    this.draft.end();
    this.quit.abort();
    this.watch.disconnect();
    this.bar.disconnect();
  }

  listen() {
    this.quit = new AbortController();
    const signal = this.quit.signal;
    const on = (target, name, act) => target.addEventListener(name, act, { signal });
    on(this.form, "input", () => this.typed());
    on(this.form, "submit", (event) => this.submit(event));
    on(this, "keydown", (event) => this.key(event));
    on(document, "keydown", (event) => event.target === document.body && this.key(event));
    for (const form of document.querySelectorAll("dialog form[data-ends]")) on(form, "submit", (event) => this.skip(event, form));
    for (const button of this.querySelectorAll("[data-as-it-was]")) on(button, "click", () => this.asItWas(button.closest(".turn")));
    // A box that is opened by hand is for writing in it.
    for (const summary of this.querySelectorAll(".mark > summary")) on(summary, "click", () => setTimeout(() => this.enter(summary.parentElement)));
  }

  /** What is scrolled into sight must not lie under the verdict. */
  measure() {
    const foot = this.querySelector(".verdict");
    this.watch = new ResizeObserver(() => this.style.setProperty("--foot", `${foot.offsetHeight + 16}px`));
    this.watch.observe(foot);
    this.bar = underBar(this);
  }

  // --- State -------------------------------------------------------------------------------------------------

  number = (turn) => turn.dataset.turn;
  comment = (turn) => this.form.elements[`comment-${this.number(turn)}`];
  text = (turn) => this.form.elements[`text-${this.number(turn)}`];
  isEdited = (turn) => plain(this.text(turn).value) !== plain(this.original.get(turn));

  /** What a draft keeps. */
  get state() {
    const comments = {};
    const edits = {};
    for (const turn of this.turns) if (this.comment(turn).value.trim()) comments[this.number(turn)] = this.comment(turn).value;
    for (const turn of this.texts) if (this.isEdited(turn)) edits[this.number(turn)] = this.text(turn).value;
    return { note: this.form.elements.note.value, comments, edits };
  }

  become({ note = "", comments = {}, edits = {} }) {
    this.form.elements.note.value = note;
    for (const turn of this.turns) {
      this.comment(turn).value = comments[this.number(turn)] ?? "";
      if (comments[this.number(turn)]) this.comment(turn).closest("details").open = true;
    }
    for (const turn of this.texts) {
      const edit = edits[this.number(turn)];
      this.text(turn).value = edit ?? this.original.get(turn);
      if (edit !== undefined) turn.querySelector("[data-edit]").open = true;
    }
    this.show();
  }

  typed() {
    this.querySelector("[data-notices] > [data-said]")?.remove();
    this.show();
    this.draft.changed();
  }

  asItWas(turn) {
    this.text(turn).value = this.original.get(turn);
    this.text(turn).focus();
    this.typed();
  }

  get edited() {
    return this.texts.filter(this.isEdited);
  }

  // --- What is seen --------------------------------------------------------------------------------------------

  show() {
    for (const turn of this.texts) {
      const said = this.comment(turn).value.trim() !== "";
      const edited = this.isEdited(turn);
      this.word(turn.querySelector("[data-comment]"), said, "Comment", "Your comment");
      this.word(turn.querySelector("[data-edit]"), edited, "Edit", "Your edit");
      turn.querySelector("[data-as-it-was]").hidden = !edited;
    }
    this.querySelector("[data-approve]").textContent = this.edited.length ? "Edit and approve" : "Approve";
  }

  word(details, some, none, word) {
    details.toggleAttribute("data-some", some);
    details.querySelector("[data-word]").textContent = some ? word : none;
  }

  notice(text) {
    const notice = document.createElement("p");
    notice.className = "notice";
    notice.dataset.said = "";
    notice.setAttribute("role", "alert");
    notice.textContent = text;
    this.querySelector("[data-notices]").replaceChildren(notice);
  }

  // --- Keys ----------------------------------------------------------------------------------------------------

  key(event) {
    if (event.defaultPrevented || event.isComposing || event.altKey || event.ctrlKey || event.metaKey) return;
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Escape" && typing(event.target)) this.act(event, () => this.leaveBox(event.target));
    if (typing(event.target) || !lettersOn()) return;
    const name = event.key.toLowerCase();
    if (name === "c") this.act(event, () => this.open("[data-comment]"));
    else if (name === "e") this.act(event, () => this.open("[data-edit]"));
    else if (name === "n") this.act(event, () => this.form.elements.note.focus());
    else if (name === "j") this.act(event, () => this.walk(1));
    else if (name === "k") this.act(event, () => this.walk(-1));
  }

  act(event, what) {
    event.preventDefault();
    what();
  }

  /** The turn that has the focus, else the one that is read: the first whose end is in sight. */
  get current() {
    const focused = document.activeElement?.closest?.(".turn");
    if (focused && this.texts.includes(focused)) return focused;
    const top = document.querySelector(".bar").getBoundingClientRect().bottom;
    return this.texts.find((turn) => turn.getBoundingClientRect().bottom > top + 40) ?? this.texts[0];
  }

  walk(step) {
    const focused = document.activeElement?.closest?.(".turn");
    const at = this.texts.indexOf(focused);
    const next = at < 0 ? this.current : this.texts[at + step];
    if (!next) return;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }

  open(which) {
    const details = this.current?.querySelector(which);
    if (!details) return;
    details.open = true;
    this.enter(details);
  }

  enter(details) {
    if (!details.open) return;
    const box = details.querySelector("textarea");
    box.focus({ preventScroll: true });
    details.scrollIntoView({ block: "nearest" });
  }

  /** Out of a box, back to its turn; an empty comment and an unchanged text close behind. */
  leaveBox(box) {
    const details = box.closest(".mark");
    const turn = box.closest(".turn");
    if (!turn) {
      box.blur();
      return;
    }
    if (details && !details.hasAttribute("data-some")) details.open = false;
    turn.focus({ preventScroll: true });
  }

  // --- To the server ---------------------------------------------------------------------------------------------

  async submit(event) {
    event.preventDefault();
    const { note, comments } = this.state;
    if (event.submitter?.value === "returned") {
      if (this.edited.length) {
        this.notice("What goes back is mended by its trainer: put the texts back as they were, or approve with your edits.");
        return;
      }
      if (!note.trim() && !Object.keys(comments).length) {
        this.notice("Say what should be mended: write a comment at a turn, or a word on the whole.");
        this.form.elements.note.focus();
        return;
      }
    }
    this.form.elements.active_seconds.value = this.time.seconds;
    const fields = new FormData(this.form);
    fields.set("verdict", event.submitter?.value ?? "");
    await this.send(this.form.action, fields);
  }

  async skip(event, form) {
    event.preventDefault();
    form.closest("dialog").close();
    await this.send(form.action, new FormData(form));
  }

  /** Send what ends this review, and go on; where it is refused, all stays as it is. */
  async send(url, fields) {
    if (this.sending) return;
    this.sending = true;
    this.setAttribute("aria-busy", "true");
    try {
      const { after } = await post(url, fields);
      this.draft.end();
      await this.goOn(after);
    } catch (error) {
      this.notice(error instanceof Away ? "No connection. What you wrote is kept here; try again in a moment." : error.message);
    } finally {
      this.sending = false;
      this.removeAttribute("aria-busy");
    }
  }

  async goOn(after) {
    try {
      const { location: where } = await post(this.dataset.claimUrl, { kind: "review" });
      location.assign(`${where}?after=${after}`);
    } catch {
      location.assign(`/?after=${after}`);
    }
  }
}

customElements.define("review-task", ReviewTask);
