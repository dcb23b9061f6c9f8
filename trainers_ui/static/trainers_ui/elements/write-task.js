/* The writing desk: a manuscript of turns, and in it the box with the one that is open. All that is done goes
   through the manuscript, which remembers where every text came from and takes any step back; this only shows it.
   Typing waits for nothing: what the server and the model have to say comes when it comes. */

import { ActiveTime } from "./active-time.js";
import { Draft } from "./draft.js";
import { Manuscript, difference, points, sourceWords } from "./manuscript.js";
import { Away, post } from "./send.js";
import { Shown, make } from "./shown.js";
import { Suggestions } from "./suggestions.js";
import { underBar } from "./under-bar.js";

const PASTED = new Set(["insertFromPaste", "insertFromDrop", "insertFromYank", "insertFromPasteAsQuotation"]);
const SETTLE = 350;
const UNASKED = 500;
const TOAST = 9000;
/* Where the box stands in the window once the manuscript is long, as a share of its height. */
const PLACE = 0.4;

const SIDE = { user: "user", assistant: "assistant" };
const INVITES = {
  user: "Write as somebody would who needs something",
  assistant: "Write the answer that you would want to get",
};

class WriteTask extends HTMLElement {
  connectedCallback() {
    this.find();
    this.manuscript = new Manuscript(JSON.parse(this.dataset.draft), { shape: this.dataset.shape });
    this.origins = new Map(Object.entries(JSON.parse(this.dataset.origins)));
    this.comments = JSON.parse(this.dataset.comments);
    this.articles = new Map();
    this.shows = new Shown(this.dataset.shownUrl);
    this.inherit();
    this.suggestions = new Suggestions(this.offers, this.querySelector("[data-offers-say]"), this);
    this.time = new ActiveTime(Number(this.dataset.active));
    this.show();
    this.listen();
    this.draft = new Draft(this, {
      read: () => this.manuscript.draft,
      restore: (draft) => this.restore(draft),
      time: this.time,
      sign: (draft) => JSON.stringify(draft, (name, value) => (name === "seconds" ? undefined : value)),
      tabs: true,
      focus: () => this.land(),
    });
    this.spent = this.time.seconds;
    this.watch = setInterval(() => this.spend(), 1000);
    this.suggestions.restore().then(() => this.unasked());
    this.settle();
    if (this.points) this.focusBox();
    this.toggleAttribute("data-ready", true);
  }

  disconnectedCallback() {
    this.quit.abort();
    this.grows.disconnect();
    this.bar.disconnect();
    this.time.stop();
    this.draft.end();
    this.suggestions.close();
    clearInterval(this.watch);
  }

  find() {
    const one = (name) => this.querySelector(`[data-${name}]`);
    this.desk = one("desk");
    this.box = one("text");
    this.offers = one("offers");
    this.preview = one("preview");
    this.hints = one("hints");
    this.system = one("system");
    this.undoing = document.querySelector("[data-undo]");
    this.redoing = document.querySelector("[data-redo]");
    this.points = matchMedia("(hover: hover)").matches;
  }

  /** What the server has shown of the manuscript need not be asked for again. */
  inherit() {
    for (const article of this.querySelectorAll("[data-turn]")) {
      this.shows.keep(article.querySelector("[data-raw]").value, article.querySelector(".message").innerHTML);
      article.remove();
    }
  }

  listen() {
    this.quit = new AbortController();
    const on = (target, name, act) => target?.addEventListener(name, act, { signal: this.quit.signal });
    on(this.box, "beforeinput", (event) => this.travels(event));
    on(this.box, "input", (event) => this.typed(event));
    on(this.box, "compositionend", () => this.typed({}));
    on(this.system, "input", () => this.manuscript.setSystem(this.system.value) && this.kept());
    on(this, "click", (event) => this.click(event));
    on(document, "keydown", (event) => this.key(event));
    on(this.hints, "submit", (event) => this.askWithHint(event));
    on(this.undoing, "click", () => this.undo());
    on(this.redoing, "click", () => this.redo());
    on(document.querySelector("form[data-to-finish]"), "submit", (event) => this.finish(event));
    for (const form of document.querySelectorAll("dialog form[data-ends]")) on(form, "submit", () => this.draft.end());
    if (!CSS.supports("field-sizing", "content")) on(this.box, "input", () => this.grow());
    this.grows = new ResizeObserver(() => this.keepInSight());
    this.grows.observe(this.box);
    this.bar = underBar(this);
  }

  // --- What is typed -----------------------------------------------------------------------------------------------

  typed({ inputType, isComposing = false }) {
    if (this.manuscript.type(this.box.value, { pasted: PASTED.has(inputType), composing: isComposing })) this.kept();
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.sayBox(), SETTLE);
  }

  /** The browser's own undo, from its menus and from gestures, knows only the box. */
  travels(event) {
    if (event.inputType === "historyUndo") this.act(event, () => this.undo());
    if (event.inputType === "historyRedo") this.act(event, () => this.redo());
  }

  /** Browsers that do not size fields by their content. */
  grow() {
    this.box.style.blockSize = "auto";
    this.box.style.blockSize = `${this.box.scrollHeight}px`;
  }

  spend() {
    this.manuscript.spend(Math.max(0, this.time.seconds - this.spent));
    this.spent = this.time.seconds;
  }

  /** Something changed that is to be kept. */
  kept() {
    this.draft?.changed();
    this.sayPast();
  }

  restore(draft) {
    this.manuscript.become(draft);
    this.show();
  }

  // --- Steps -------------------------------------------------------------------------------------------------------

  /** Do something to the manuscript and show what it is then. Whether it changed. */
  step(change, { focus = true, anchor = null } = {}) {
    const { key, role } = this.manuscript.turn;
    const top = anchor?.getBoundingClientRect().top;
    if (!change()) return false;
    this.preview.hidden || this.look(false);
    this.show();
    if (this.manuscript.turn.key !== key) {
      if (top === undefined) this.settle();
      else scrollBy({ top: this.desk.getBoundingClientRect().top - top, behavior: "instant" });
      this.openHints(false);
      this.suggestions.turned();
      this.unasked();
    } else if (this.manuscript.turn.role !== role) {
      this.suggestions.turned();
      this.unasked();
    } else this.suggestions.refresh();
    this.toast("");
    this.kept();
    if (focus) this.focusBox();
    else if (document.activeElement === document.body) this.land();
    return true;
  }

  done() {
    if (this.step(() => this.manuscript.done())) return;
    this.toast("Write something in this turn first.");
    this.focusBox();
  }

  undo() {
    this.step(() => this.manuscript.undo(), { focus: document.activeElement !== this.system });
  }

  redo() {
    this.step(() => this.manuscript.redo(), { focus: document.activeElement !== this.system });
  }

  /** A suggestion was chosen: taken whole, put into the box, or its next sentence. */
  chose(action, suggestion) {
    this.origins.set(suggestion.ref.join("/"), suggestion.text);
    const before = this.manuscript.turn;
    if (action === "take") this.step(() => this.manuscript.take(suggestion), { focus: this.points });
    if (action === "edit") {
      const gaveWay = before.text.trim() && !before.opening && before.typed + before.pasted > 0;
      if (this.step(() => this.manuscript.edit(suggestion)) && gaveWay) this.toast("Your text gave way to the suggestion.", true);
    }
    if (action === "next") this.step(() => this.manuscript.nextSentence(suggestion), { focus: this.points });
    if (action !== "take") this.toEnd();
  }

  erase(index) {
    const count = this.manuscript.turns.slice(index).filter((turn) => turn.text.trim()).length;
    if (this.step(() => this.manuscript.deleteFrom(index))) this.toast(`Deleted ${count === 1 ? "one turn" : `${count} turns`}.`, true);
  }

  clear() {
    if (this.step(() => this.manuscript.clear())) this.toast("The opening is put aside.", true);
  }

  // --- Keys and buttons ----------------------------------------------------------------------------------------------

  act(event, what) {
    event.preventDefault();
    what();
  }

  key(event) {
    if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return undefined;
    const inOther = event.target.closest?.("input, textarea, select") && event.target !== this.box && event.target !== this.system;
    if ((event.ctrlKey || event.metaKey) && !event.altKey) {
      const letter = event.key.toLowerCase();
      if (event.key === "Enter" && !inOther) return this.act(event, () => event.repeat || this.done());
      if (letter === "z" && !inOther) return this.act(event, () => (event.shiftKey ? this.redo() : this.undo()));
      if (letter === "y" && !inOther && !event.metaKey) return this.act(event, () => this.redo());
      return undefined;
    }
    // With Alt a Mac types other signs, and other layouts have other digits: the place of the key counts.
    const digit = event.altKey && !event.ctrlKey && !event.metaKey && event.code?.match(/^Digit([1-3])$/);
    if (digit) return this.act(event, () => this.suggestions.choose(event.shiftKey ? "edit" : "take", digit[1] - 1));
    if (event.key === "Escape") return this.escape(event);
    return undefined;
  }

  escape(event) {
    if (!this.hints.hidden && this.hints.contains(document.activeElement)) this.act(event, () => this.openHints(false, true));
    else if (!this.preview.hidden) this.act(event, () => this.look(false));
    else if (this.suggestions.pending) this.act(event, () => this.suggestions.stop());
  }

  click(event) {
    const button = event.target.closest("button[data-do]");
    if (!button) return undefined;
    const index = this.manuscript.turns.findIndex((turn) => String(turn.key) === button.closest("article")?.dataset.key);
    switch (button.dataset.do) {
      case "ask":
        return this.ask({ hint: button.dataset.hint ?? "" });
      case "own-hint":
        return this.openHints(this.hints.hidden, true);
      case "preview":
        return this.look(this.preview.hidden);
      case "done":
        return this.done();
      case "switch":
        return this.step(() => this.manuscript.switchSide());
      case "clear":
        return this.clear();
      case "undo":
        return this.undo();
      case "back":
        return this.goTo(this.manuscript.at - 1);
      case "edit":
        return this.goTo(index, button.closest("article"));
      case "delete":
        return this.erase(index);
      case "branch":
        return this.branch(index);
      default:
        return undefined;
    }
  }

  /** Write at another turn; it stays where it is in the window. */
  goTo(index, anchor = this.articles.get(this.manuscript.turns[index]?.key)) {
    if (this.step(() => this.manuscript.open(index), { anchor })) this.toEnd();
  }

  // --- Suggestions -----------------------------------------------------------------------------------------------------

  ask(options = {}) {
    clearTimeout(this.unaskedSoon);
    this.suggestions.ask(options);
    if (this.points) this.focusBox();
  }

  askWithHint(event) {
    event.preventDefault();
    const hint = this.hints.elements.hint.value.trim();
    if (hint) this.ask({ hint });
  }

  openHints(open, focus = false) {
    this.hints.hidden = !open;
    this.querySelector("[data-do=own-hint]").setAttribute("aria-expanded", String(open));
    if (focus && open) this.hints.elements.hint.focus();
    else if (focus) this.focusBox();
  }

  /** Whether there are suggestions to see, and whether some are being written. */
  asks(some, pending) {
    this.querySelector("[data-ask-word]").textContent = some ? "Again" : "Suggest";
    this.toggleAttribute("data-suggesting", pending);
  }

  /** Projects can have one ready at every turn that answers something. */
  unasked() {
    clearTimeout(this.unaskedSoon);
    if (this.dataset.unasked !== "yes") return;
    this.unaskedSoon = setTimeout(() => {
      const { turn, before } = this.manuscript;
      if (!turn.text.trim() && before.length && !this.suggestions.now && !this.suggestions.pending) this.suggestions.ask({ n: 1 });
    }, UNASKED);
  }

  // --- To the server -----------------------------------------------------------------------------------------------

  /** Everything is on the server, or a word of why not. */
  async saved() {
    this.spend();
    if (await this.draft.flush()) return true;
    this.toast(this.draft.hindrance);
    return false;
  }

  async finish(event) {
    event.preventDefault();
    if (this.finishing) return;
    this.finishing = true;
    this.suggestions.stop();
    if (await this.saved()) location.assign(event.target.action);
    this.finishing = false;
  }

  async branch(index) {
    // A button that is disabled loses the focus.
    if (this.branching) return;
    this.branching = true;
    try {
      if (!(await this.saved())) return;
      const { notice } = await post(this.dataset.branchUrl, { upto: index });
      this.querySelector("[data-branched]").insertAdjacentHTML("beforeend", notice);
      this.toast("Branched: a copy up to here waits for you on your home page.");
    } catch (error) {
      this.toast(error instanceof Away ? "No connection: it could not be branched now." : error.message);
    } finally {
      this.branching = false;
    }
  }

  // --- What is seen ------------------------------------------------------------------------------------------------

  show() {
    const { turns, at, doc } = this.manuscript;
    const keys = new Set(turns.map((turn) => turn.key));
    for (const [key, article] of this.articles) {
      if (keys.has(key) && key !== turns[at].key) continue;
      article.remove();
      this.articles.delete(key);
    }
    // The desk itself is never moved: what has the focus would lose it.
    const articles = turns.map((turn, index) => (index === at ? this.desk : this.articleOf(turn, index)));
    for (let index = at - 1; index >= 0; index -= 1) {
      if (articles[index].nextElementSibling !== articles[index + 1]) articles[index + 1].before(articles[index]);
    }
    for (let index = at + 1; index < articles.length; index += 1) {
      if (articles[index].previousElementSibling !== articles[index - 1]) articles[index - 1].after(articles[index]);
    }
    this.sayBox();
    this.sayPast();
    const system = doc.system ?? this.system?.dataset.own;
    if (this.system && this.system.value !== system) {
      this.system.value = system;
      this.system.closest("details").open = true;
    }
  }

  articleOf(turn, index) {
    const article = this.articles.get(turn.key) ?? turnArticle(turn);
    this.articles.set(turn.key, article);
    article.className = `turn ${turn.role}`;
    article.querySelector(".side").textContent = `The ${SIDE[turn.role]}`;
    article.querySelector(".from").textContent = turn.text.trim() ? this.wordsOf(turn) : "empty";
    this.shows.show(article.querySelector(".message"), turn.text);
    for (const button of article.querySelectorAll("[data-what]")) button.textContent = ` the ${SIDE[turn.role]}'s turn ${index + 1}`;
    this.comment(article.querySelector(".comment"), index);
    return article;
  }

  comment(place, index) {
    const text = this.comments[index + 1] ?? "";
    place.hidden = !text;
    place.querySelector("[data-words]").textContent = text;
  }

  originOf(turn) {
    if (turn.from) return this.origins.get(turn.from.join("/"));
    return turn.opening ? this.dataset.prompt : undefined;
  }

  /** Finding out how much of a text is one's own takes time: once a text. */
  wordsOf(turn) {
    const origin = this.originOf(turn);
    if (this.counted?.get(turn.key)?.turn === turn && this.counted.get(turn.key).origin === origin) return this.counted.get(turn.key).words;
    const words = sourceWords(turn, origin);
    (this.counted ??= new Map()).set(turn.key, { turn, origin, words });
    return words;
  }

  /** What the box says of its turn. */
  sayBox() {
    const { turn, at } = this.manuscript;
    const before = this.box.value;
    if (before !== turn.text) {
      this.box.value = turn.text;
      const { now } = difference(before, turn.text);
      this.box.setSelectionRange(now, now);
      if (!CSS.supports("field-sizing", "content")) this.grow();
    }
    this.box.placeholder = INVITES[turn.role];
    this.desk.dataset.role = turn.role;
    this.querySelector("[data-side]").textContent = `The ${SIDE[turn.role]}'s turn`;
    this.querySelector("[data-from]").textContent = turn.text.trim() && (turn.from || turn.opening) ? this.wordsOf(turn) : "";
    this.querySelector("[data-do=switch]").hidden = !this.manuscript.switches;
    this.querySelector("[data-do=clear]").hidden = !turn.opening || turn.text.trim() !== this.dataset.prompt.trim();
    this.querySelector("[data-do=back]").hidden = !at;
    this.querySelector("[data-editing]").hidden = this.manuscript.atEnd;
    this.comment(this.desk.querySelector(".comment"), at);
    this.sayLength(turn.text);
  }

  /** What is too long is never cut: it is kept, and said. */
  sayLength(text) {
    const longest = Number(this.dataset.longest);
    const count = text.length > longest ? points(text) : 0;
    const place = this.querySelector("[data-too-long]");
    place.hidden = count <= longest;
    const number = (value) => value.toLocaleString("en");
    place.textContent = count > longest ? `${number(count)} characters; a turn may have ${number(longest)}. It is kept, and cannot be finished like this.` : "";
  }

  sayPast() {
    if (this.undoing) this.undoing.disabled = !this.manuscript.past.length;
    if (this.redoing) this.redoing.disabled = !this.manuscript.future.length;
  }

  look(at) {
    const { turn } = this.manuscript;
    this.preview.style.minBlockSize = `${this.box.offsetHeight}px`;
    this.preview.hidden = !at;
    this.box.hidden = at;
    this.querySelector("[data-do=preview]").setAttribute("aria-pressed", String(at));
    if (at) {
      this.shows.show(this.preview, turn.text.trim() ? turn.text : "Nothing to look at yet.");
      this.preview.focus({ preventScroll: true });
    } else this.focusBox();
  }

  focusBox() {
    if (!this.box.hidden) this.box.focus({ preventScroll: true });
  }

  /** Where the focus goes when what had it is gone; on a phone no keyboard comes up for that. */
  land() {
    if (this.points) this.focusBox();
    else this.querySelector("[data-do=ask]").focus({ preventScroll: true });
  }

  toEnd() {
    const { length } = this.box.value;
    this.box.setSelectionRange(length, length);
    this.box.scrollTop = this.box.scrollHeight;
  }

  /** The box goes down with what is written, to the middle of the window, and stays there. */
  settle() {
    const { top } = this.desk.getBoundingClientRect();
    scrollTo({ top: Math.max(0, scrollY + top - innerHeight * PLACE), behavior: "instant" });
  }

  /** A box that grows beyond the window takes its buttons along. */
  keepInSight() {
    const { bottom, top } = this.box.closest(".box").getBoundingClientRect();
    const over = Math.min(bottom - innerHeight + 14, top - 60);
    if (over > 0 && document.activeElement === this.box) scrollBy({ top: over, behavior: "instant" });
  }

  /** For those who do not see the suggestions come. */
  heard(text) {
    this.querySelector("[data-status]").textContent = text;
  }

  toast(text, undoable = false) {
    const place = this.querySelector("[data-toast]");
    clearTimeout(this.toasting);
    place.replaceChildren(text);
    if (undoable) place.append(" ", make("button", { type: "button", class: "small", "data-do": "undo" }, "Undo ", make("kbd", {}, "Ctrl Z")));
    place.classList.toggle("shows", Boolean(text));
    if (text) this.toasting = setTimeout(() => place.contains(document.activeElement) || this.toast(""), TOAST);
  }
}

function turnArticle(turn) {
  const what = () => make("span", { class: "unseen", "data-what": true });
  const button = (action, label) => make("button", { type: "button", class: "plain small", "data-do": action }, label, what());
  return make(
    "article",
    { "data-key": String(turn.key) },
    make(
      "header",
      {},
      make("h2", { class: "who" }, make("span", { class: "side" }), " ", make("span", { class: "from" })),
      make("div", { class: "acts" }, button("edit", "Edit"), button("delete", "Delete from here"), button("branch", "Branch from here")),
    ),
    make("div", { class: "message", dir: "auto" }),
    make("aside", { class: "comment", hidden: true }, make("strong", {}, "Reviewer "), make("span", { "data-words": true, dir: "auto" })),
  );
}

customElements.define("write-task", WriteTask);
